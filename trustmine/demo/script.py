"""The demo's history as written down in history/*.txt, turned into trees.

Each file there is one year, read from top to bottom:

    commit buffer-nul                    a name of its own, for parents and tests
    author mara                          one of AUTHORS
    date 2018-08-21T22:10:05+02:00
    parents quota-count config-comments  only where it is not the commit above
    encoding ISO-8859-1                  only where it is not UTF-8
    fix CWE-193 off-by-one               only if it fixes a vulnerability
    cve CVE-2023-99104                   only if it has one
    message
        buffer: leave room for the final NUL

followed by edits: `add PATH` (as in sources/), `create PATH` and its lines,
`edit PATH` and its hunks, `move OLD NEW`, `delete PATH`, `crlf PATH`,
`generate PATH GENERATOR`, `take COMMIT PATH`. Hunks look as in a patch but
carry no line numbers: the text of their context and deleted lines must occur
exactly once. In messages \\xHH is a raw byte.

The text is part of the program: a mistake in it is a ValueError.
"""

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

AUTHORS: Mapping[str, str] = {
    "mara": "Mara Lindqvist <mara@parcel.example>",
    "tomas": "Tomas Oyelaran <tomas@parcel.example>",
    "jose": "José Ferreira <jose@parcel.example>",
    "ilse": "Ilse Brandt <ilse@parcel.example>",
}

_RAW_BYTE = re.compile(rb"\\x([0-9a-f]{2})")
_NO_NEWLINE = "\\ No newline at end of file"


@dataclass(frozen=True)
class Entry:
    """One commit of the script with the whole tree it leaves behind."""

    slug: str
    author: bytes  # name and address, in the commit's encoding
    time_s: int
    zone: str  # +0200
    parents: tuple[str, ...]
    encoding: str | None
    cwe: str | None  # only fixes have one
    kind: str | None
    cve: str | None
    message: bytes
    tree: Mapping[str, bytes]


@dataclass
class _Draft:
    """The header lines of one commit, and its edits not yet applied."""

    slug: str
    header: dict[str, str] = field(default_factory=dict)
    message: list[str] = field(default_factory=list)
    edits: list[tuple[list[str], list[str]]] = field(default_factory=list)  # directive words, its lines


def read_script() -> tuple[Entry, ...]:
    """All commits, parents before children."""
    entries: dict[str, Entry] = {}
    previous: str | None = None
    for path in sorted((FOLDER / "history").glob("*.txt")):
        for draft in _drafts(path.read_text(encoding="utf-8").splitlines()):
            if draft.slug in entries:
                raise ValueError(f"two commits named {draft.slug}")
            entries[draft.slug] = _entry(draft, previous, entries)
            previous = draft.slug
    return tuple(entries.values())


def _drafts(lines: list[str]) -> Iterator[_Draft]:
    draft: _Draft | None = None
    body: list[str] = []  # where indented and hunk lines go
    for line in lines:
        if line.startswith("commit "):
            if draft:
                yield draft
            draft = _Draft(line.split()[1])
            body = []
        elif draft is None:
            raise ValueError(f"text before the first commit: {line!r}")
        elif not line or line[0] in " +-@\\":
            body.append(line)
        elif line == "message":
            body = draft.message
        elif (words := line.split())[0] in _EDITS:
            body = []
            draft.edits.append((words, body))
        else:
            name, _, value = line.partition(" ")
            draft.header[name] = value
    if draft:
        yield draft


def _entry(draft: _Draft, previous: str | None, entries: Mapping[str, Entry]) -> Entry:
    header = dict(draft.header)
    encoding = header.pop("encoding", None)
    when = datetime.datetime.fromisoformat(header.pop("date"))
    default = () if previous is None else (previous,)
    parents = tuple(header.pop("parents").split()) if "parents" in header else default
    cwe, _, kind = header.pop("fix", "").partition(" ")
    text = "\n".join(line[4:] for line in draft.message).strip("\n") + "\n"
    tree = dict(entries[parents[0]].tree) if parents else {}
    author, cve = AUTHORS[header.pop("author")], header.pop("cve", None)
    if header:
        raise ValueError(f"{draft.slug}: unknown header {sorted(header)}")
    for words, body in draft.edits:
        try:
            _EDITS[words[0]](tree, words[1:], body, entries)
        except (KeyError, ValueError) as error:
            raise ValueError(f"commit {draft.slug}: {' '.join(words)}: {error}") from error
    return Entry(
        slug=draft.slug,
        author=author.encode(encoding or "utf-8"),
        time_s=int(when.timestamp()),
        zone=when.strftime("%z"),
        parents=parents,
        encoding=encoding,
        cwe=cwe or None,
        kind=kind or None,
        cve=cve,
        message=_RAW_BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode(encoding or "utf-8")),
        tree=tree,
    )


# ------------------------------------------------------------------------ edits


def _add(tree: dict[str, bytes], words: list[str], _body: list[str], _entries: Mapping[str, Entry]) -> None:
    # As text: line ends that git changed in a checkout of trustmine itself must not change the demo.
    tree[words[0]] = (FOLDER / "sources" / words[0]).read_text(encoding="utf-8").encode()


def _create(tree: dict[str, bytes], words: list[str], body: list[str], _entries: Mapping[str, Entry]) -> None:
    tree[words[0]] = _sides("\n".join(body))[1]


def _edit(tree: dict[str, bytes], words: list[str], body: list[str], _entries: Mapping[str, Entry]) -> None:
    content = tree[words[0]]
    for old, new in _hunks(body):
        if b"\r\n" in content:
            old, new = old.replace(b"\n", b"\r\n"), new.replace(b"\n", b"\r\n")
        if content.count(old) != 1:
            raise ValueError(f"hunk found {content.count(old)} times:\n{old.decode()}")
        content = content.replace(old, new)
    tree[words[0]] = content


def _hunks(body: list[str]) -> Iterator[tuple[bytes, bytes]]:
    """(old text, new text) of each hunk."""
    for hunk in "\n".join(body).split("@@\n")[1:]:
        yield _sides(hunk)


def _sides(hunk: str) -> tuple[bytes, bytes]:
    """Old and new text; empty lines within are context, those at the end only separate."""
    old: list[str] = []
    new: list[str] = []
    mark = " "
    for line in hunk.rstrip("\n").split("\n"):
        if line == _NO_NEWLINE:
            for side, marks in ((old, " -"), (new, " +")):
                if mark in marks:
                    side[-1] = side[-1].removesuffix("\n")
            continue
        mark = line[0] if line else " "
        if mark in " -":
            old.append(line[1:] + "\n")
        if mark in " +":
            new.append(line[1:] + "\n")
    return "".join(old).encode(), "".join(new).encode()


def _move(tree: dict[str, bytes], words: list[str], _body: list[str], _entries: Mapping[str, Entry]) -> None:
    tree[words[1]] = tree.pop(words[0])


def _delete(tree: dict[str, bytes], words: list[str], _body: list[str], _entries: Mapping[str, Entry]) -> None:
    del tree[words[0]]


def _crlf(tree: dict[str, bytes], words: list[str], _body: list[str], _entries: Mapping[str, Entry]) -> None:
    tree[words[0]] = tree[words[0]].replace(b"\n", b"\r\n")


def _take(tree: dict[str, bytes], words: list[str], _body: list[str], entries: Mapping[str, Entry]) -> None:
    tree[words[1]] = entries[words[0]].tree[words[1]]


def _generate(tree: dict[str, bytes], words: list[str], _body: list[str], _entries: Mapping[str, Entry]) -> None:
    tree[words[0]] = _GENERATORS[words[1]]()


_EDITS: Mapping[str, Callable[[dict[str, bytes], list[str], list[str], Mapping[str, Entry]], None]] = {
    "add": _add,
    "create": _create,
    "edit": _edit,
    "move": _move,
    "delete": _delete,
    "crlf": _crlf,
    "take": _take,
    "generate": _generate,
}


def _class_table() -> bytes:
    """A C table of 65,536 character classes, more than 1,000,000 characters long."""
    ranges = ((0x20, "CONTROL"), (0x30, "SYMBOL"), (0x3A, "DIGIT"), (0x2000, "LETTER"), (0x3000, "SYMBOL"))
    lines = []
    for start in range(0, 0x10000, 8):
        name = next((name for stop, name in ranges if start < stop), "LETTER")
        lines.append(f"    /* U+{start:04X} */ " + f"CLASS_{name}, " * 7 + f"CLASS_{name},\n")
    head = "/* Generated: the class of every character of the basic plane, eight to a line. */\n"
    enum = "enum char_class { CLASS_CONTROL, CLASS_SYMBOL, CLASS_DIGIT, CLASS_LETTER };\n\n"
    return (head + enum + "static const unsigned char class_table[65536] = {\n" + "".join(lines) + "};\n").encode()


def _crash_input() -> bytes:
    """A frame whose payload is every byte there is: binary for git, as it has NULs."""
    return bytes([1, 0, 0, 7, 0, 0, 1, 0]) + bytes(range(256))


_GENERATORS: Mapping[str, Callable[[], bytes]] = {"class_table": _class_table, "crash_input": _crash_input}
