"""Definitions in the tree of a commit: the file, its headers, the rest."""

import subprocess

import pytest

from trustmine import definitions, lines
from trustmine.definitions import DefinitionFinder
from trustmine.gitrepo import GitRepo
from trustmine.lines import split_lines

FILES = {
    "lib/a.c": '#include "a.h"\n#include <proj/base.h>\n#include "../gone.h"\n#include "setup-vms.h"\n'
    '#include "trace.h"\nstatic int own(void) { return 0; }\n',
    "lib/a.h": '#include "deep.h"\nint far(int n);\nstruct opaque;\n#define A_LIMIT \\\n  8\n',
    "lib/deep.h": '#include "a.h"\nenum mode {\n  kFast,\n  kSlow\n};\n'
    "typedef struct deep {\n  int width;\n} deep_t;\n",
    "include/proj/base.h": "extern int level;\ntypedef unsigned base_t;\nint nowhere(void);\n",
    "lib/sub/far.c": "int\nfar(int n)\n{\n  return n;\n}\nint level = 3;\n",
    "other/far.c": "int far(int n) { return 0; }\n/* lonely(x) */\n",
    "lib/setup-vms.h": "#define far_call FAR_CALL\n#define LEVELS 2\n",
    "lib/hidden.c": "#define HIDDEN 1\nstatic int unseen(void) { return 0; }\nextern int errno;\n"
    "struct inside {\n  int depth;\n};\n",
    "lib/hidden.h": "#define NOT_INCLUDED 1\nstruct apart {\n  int length;\n};\n",
    "lib/trace.h": "struct note {\n  int n;\n};\nstatic void note(int n) { }\n"
    "#define trace(d, ...) do { } while(0)\n#define trace(d, ...) tell(d, __VA_ARGS__)\n"
    "#define tell (void)\n#define tell really_tell\n",
    "other/many.c": "int many;\n" * 100,
    "other/notes.txt": "int texted(void) { }\n",
}


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> tuple[DefinitionFinder, str]:
    folder = tmp_path_factory.mktemp("defs")
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", *who, "commit", "-qm", "all"], cwd=folder, check=True)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return DefinitionFinder(GitRepo.open(folder)), sha.strip()


@pytest.mark.parametrize(
    ("name", "hint", "expected"),
    [
        ("own", "function", [("lib/a.c", 6, 6, "function")]),
        ("A_LIMIT", "macro", [("lib/a.h", 4, 5, "macro")]),
        ("kSlow", "constant", [("lib/deep.h", 4, 4, "constant")]),
        ("kFast", "variable", [("lib/deep.h", 3, 3, "constant")]),
        ("deep_t", "type", [("lib/deep.h", 6, 8, "typedef")]),
        ("deep", "type", [("lib/deep.h", 6, 8, "struct")]),
        ("width", "member", [("lib/deep.h", 7, 7, "member")]),
        ("base_t", "type", [("include/proj/base.h", 2, 2, "typedef")]),
        # Declared in headers: the definitions are elsewhere, the nearest folder first.
        ("far", "function", [("lib/sub/far.c", 1, 5, "function"), ("other/far.c", 1, 1, "function")]),
        ("level", "variable", [("lib/sub/far.c", 6, 6, "variable")]),
        ("lonely", "function", []),
        ("texted", "function", []),
        ("width", "function", []),
        ("missing", "function", []),
        # Another source file's own: its macros, statics, declarations and members.
        ("HIDDEN", "macro", []),
        ("unseen", "function", []),
        ("errno", "variable", []),
        ("depth", "member", []),
        # Headers that are not included, types aside.
        ("NOT_INCLUDED", "macro", []),
        ("length", "member", []),
        ("apart", "type", [("lib/hidden.h", 2, 4, "struct")]),
        # Macros for another platform.
        ("LEVELS", "macro", []),
        ("far_call", "function", []),
        # A function, not the struct of that name; the macro that does something before the one that does not.
        ("note", "function", [("lib/trace.h", 4, 4, "function")]),
        ("trace", "function", [("lib/trace.h", 6, 6, "macro"), ("lib/trace.h", 5, 5, "macro")]),
        ("tell", "function", [("lib/trace.h", 8, 8, "macro"), ("lib/trace.h", 7, 7, "macro")]),
    ],
)
def test_the_definition_of_a_name(
    finder: tuple[DefinitionFinder, str], name: str, hint: str, expected: list[tuple[str, int, int, str]]
) -> None:
    found = finder[0].find(name, hint, "lib/a.c", finder[1], FILES["lib/a.c"].encode(), 9).nearest
    assert [(d.path, d.first_line, d.last_line, d.kind) for d in found] == expected
    for definition in found:
        lines = FILES[definition.path].splitlines(keepends=True)
        assert definition.text.decode() == "".join(lines[definition.first_line - 1 : definition.last_line])
        assert not definition.is_declaration_only


def test_a_declaration_is_the_answer_where_there_is_no_definition(finder: tuple[DefinitionFinder, str]) -> None:
    (found,) = finder[0].find("nowhere", "function", "lib/a.c", finder[1], FILES["lib/a.c"].encode(), 9).nearest
    assert (found.path, found.is_declaration_only) == ("include/proj/base.h", True)
    (found,) = finder[0].find("opaque", "type", "lib/a.c", finder[1], FILES["lib/a.c"].encode(), 9).nearest
    assert (found.path, found.is_declaration_only) == ("lib/a.h", True)


def test_the_file_itself_is_taken_as_given(finder: tuple[DefinitionFinder, str]) -> None:
    content = b"static int far(int n) { return 1; }\n"
    (found,) = finder[0].find("far", "function", "lib/a.c", finder[1], content, 9).nearest
    assert (found.path, found.text) == ("lib/a.c", content)


def test_a_file_for_a_platform_sees_what_is_for_that_platform(finder: tuple[DefinitionFinder, str]) -> None:
    source = b'#include "setup-vms.h"\n'
    assert finder[0].find("LEVELS", "macro", "lib/vms.c", finder[1], source, 9).n == 1


@pytest.mark.parametrize(
    ("name", "hint", "source"),
    [("many", "variable", FILES["lib/a.c"].encode()), ("MANY", "macro", b"#define MANY 1\n" * 100)],
    ids=["another file", "the file itself"],
)
def test_a_file_is_split_once_however_often_it_defines_a_name(
    finder: tuple[DefinitionFinder, str], monkeypatch: pytest.MonkeyPatch, name: str, hint: str, source: bytes
) -> None:
    n_split = 0

    def counting(text: bytes) -> list[bytes]:
        nonlocal n_split
        n_split += 1
        return split_lines(text)

    for module in (definitions, lines):
        monkeypatch.setattr(module, "split_lines", counting, raising=False)
    assert finder[0].find(name, hint, "lib/a.c", finder[1], source, 9).n == 100
    assert n_split == 1
