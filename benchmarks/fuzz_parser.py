"""Whatever bytes come in, the parser returns: a coverage-guided fuzzer with atheris.

Feeds bytes to everything of `trustmine.cparse` and `trustmine.patches` that
takes bytes of strangers, and checks what they promise: positions stay inside,
names occur in the source, a patch that fits gives the image it was made from.
Any exception but PatchError is a finding, and so is an input that takes more
than SLOW_S seconds.

atheris is no dependency of the project; put it into an environment of its own:

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris . && \
        /tmp/fuzz/bin/python benchmarks/fuzz_parser.py CORPUS [SEEDS] -max_total_time=3600

CORPUS is a folder that grows; SEEDS are folders of small C and C++ files and
patches to start from. Further flags are libFuzzer's. Ends with exit code 0 where nothing was
found, else with libFuzzer's, and the input lies in ./crash-*.
"""

import re
import sys
import time

import atheris

with atheris.instrument_imports(include=["trustmine.cparse", "trustmine.patches", "trustmine.lines"]):
    from trustmine import cparse, patches
    from trustmine.lines import split_lines

SLOW_S = 10.0  # of processor time, for inputs of at most MAX_BYTES
MAX_BYTES = 4_096
_WORD = re.compile(r"\w+")
_PATHS = ("x.c", "x.h", "x.cpp")


def one_input(data: bytes) -> None:
    """A patch and, after two zero bytes, its pre-image; else a source, whose last byte says which language."""
    started = time.process_time()
    if data.startswith(b"diff "):
        check_patches(data)
    else:
        check_source(data, _PATHS[data[-1] % len(_PATHS)] if data else _PATHS[0])
    took_s = time.process_time() - started
    if took_s > SLOW_S:
        raise TimeoutError(f"{len(data)} bytes took {took_s:.1f} s")


def check_source(source: bytes, path: str) -> None:
    """Everything that reads source, and where its answers may point to."""
    n_lines = source.count(b"\n") + 1
    for function in cparse.functions(source, path):
        assert 0 <= function.start_byte < function.end_byte <= len(source)
        assert 1 <= function.first_line <= function.body_first_line <= function.body_last_line <= function.last_line
        assert function.last_line <= n_lines
    for lines in cparse.statement_ranges(source, path)[:3]:
        assert 1 <= lines.first_line <= lines.last_line <= n_lines
        for near in cparse.neighbours(source, lines, path):
            assert 1 <= near.first_line <= near.last_line <= n_lines
    for symbol in cparse.symbols(source, path):
        assert 1 <= symbol.first_line <= symbol.last_line <= n_lines
        # Operators are named with their white space made one space.
        assert symbol.name.encode() in source or not _WORD.fullmatch(symbol.name)
    for name in cparse.names(source, 1, n_lines, path):
        assert name.name.encode() in source
    cparse.includes(source, path)
    stripped = cparse.strip_comments_and_space(source, path)
    assert len(stripped) <= len(source) + n_lines
    if not any(byte in source for byte in b"\n\"'"):
        assert cparse.strip_comments_and_space(stripped, path) == stripped


def check_patches(data: bytes) -> None:
    """A patch is read or refused; one that is read fits its own pre-image and gives its own post-image."""
    patch, _, pre = data.partition(b"\0\0")
    try:
        files = patches.parse(patch)
    except patches.PatchError:
        return
    for file in files:
        for hunk in file.hunks:
            patches.deleted_lines(hunk)
            patches.added_lines(hunk)
            again = patches.parse(b"diff --git a/x b/x\n" + hunk.text())
            assert again[0].hunks == (hunk,)
        try:
            post = patches.apply(pre, file)
        except patches.PatchError:
            continue
        grown = sum(hunk.new_lines - hunk.old_lines for hunk in file.hunks)
        assert len(split_lines(post)) == len(split_lines(pre)) + grown


def main() -> None:
    own = [] if any(flag.startswith("-max_len=") for flag in sys.argv) else [f"-max_len={MAX_BYTES}"]
    atheris.Setup([*sys.argv, *own], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
