"""Under which licence a file stands, as far as the repository says so: an SPDX expression, or `unknown`.

What the file itself says (`SPDX-License-Identifier`) comes first, then the
licence file at the top of the repository, whose text counts only if it is one
licence for the greater part. Without such a file a README at the top may hold
a whole licence, or name the file that does where it speaks of copying. The
words need not be exactly a licence's (licencetexts). Nothing is guessed from
anything else.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from licenseclassifier import identify_license
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from trustmine import licencetexts

UNKNOWN = "unknown"
MAX_BYTES = 1_000_000  # of a licence file; 0.6 s on text that is none (2026-11)

_HEAD_BYTES = 8_192  # where in a file its own licence may stand
_LINE = re.compile(rb"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() \t-]{1,200})")
MIN_CHARS = 500  # of a licence inside of another text; what is shorter may only speak of one
MAX_NAMED = 8  # files that are looked into because a README names them
MAX_PATHS = 200  # that may be such names; each is looked for in the tree of every commit

_NAME = re.compile(rb"(?:licen[cs]e|copying|unlicen[cs]e)(?:[.-][\w.+-]{1,40})?", re.IGNORECASE)

_README = re.compile(rb"readme(?:\.[\w.+-]{1,40})?", re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n[ \t]*\r?\n")
_SPEAKS_OF_IT = re.compile(r"\b(?:licen[cs]|copying\b)", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w:/.-])(?:\./)?([\w-][\w./+-]{0,200}\w)")
_HEADING_WORDS = 6  # at most, of a paragraph that stands above what it is about


def of_file(source: bytes) -> str | None:
    """What the file says of itself: an SPDX expression, `unknown` if it is none; None if it says nothing."""
    match = _LINE.search(source[:_HEAD_BYTES])
    if match is None:
        return None
    try:
        return str(canonicalize_license_expression(match[1].decode().strip(" \t-")))
    except InvalidLicenseExpression:
        return UNKNOWN


def licence_files(names: Iterable[bytes]) -> list[bytes]:
    """Those that hold the licence of a repository by their names, in order."""
    return sorted(name for name in names if _NAME.fullmatch(name))


def of_repository(
    top: Mapping[bytes, str], read: Callable[[str], bytes], find: Callable[[bytes], str | None]
) -> tuple[str, bytes | None]:
    """The licence of a tree, and the file that says so; None where no file is about it.

    `top`: name -> blob of the files at its top; `read` gives a blob, `find` the blob of a path.
    """
    names = licence_files(top)
    if names:
        return of_texts(read(top[name]) for name in names), names[0]
    said: dict[str, bytes] = {}
    for name in sorted(name for name in top if _README.fullmatch(name)):
        readme = read(top[name])
        texts = {name: readme}
        for path in _named(readme):
            oid = None if path in texts else find(path)
            if oid is not None and len(texts) <= MAX_NAMED:
                texts[path] = read(oid)
        for path, text in texts.items():
            said.setdefault(_inside(text), path)
    said.pop(UNKNOWN, None)
    return next(iter(said.items())) if len(said) == 1 else (UNKNOWN, None)


@lru_cache(maxsize=64)
def _named(readme: bytes) -> tuple[bytes, ...]:
    """What may be a path, in paragraphs that speak of copying, and in those below a heading that does."""
    named: dict[bytes, None] = {}
    paragraphs = _PARAGRAPH.split(readme[:MAX_BYTES].decode("utf-8", "replace"))
    for number, paragraph in enumerate(paragraphs):
        above = paragraphs[number - 1] if number else ""
        is_headed = len(above.split()) <= _HEADING_WORDS and _SPEAKS_OF_IT.search(above)
        if is_headed or _SPEAKS_OF_IT.search(paragraph):
            named |= {match[1].encode(): None for match in _PATH.finditer(paragraph)}
        if len(named) >= MAX_PATHS:
            break
    return tuple(named)[:MAX_PATHS]


def of_texts(texts: Iterable[bytes]) -> str:
    """The one licence that all of these texts are; `unknown` if there is none, or more than one."""
    found = {_of_text(text) for text in texts}
    return found.pop() if len(found) == 1 else UNKNOWN


@lru_cache(maxsize=64)
def _of_text(text: bytes) -> str:
    """The licence that the greater part of a text is."""
    if len(text) > MAX_BYTES:
        return UNKNOWN
    whole = text.decode("utf-8", "replace")
    found = max(identify_license(whole), key=lambda one: one.end - one.start, default=None) or licencetexts.similar(
        whole
    )
    return found.id if found is not None and 2 * (found.end - found.start) > len(whole.strip()) else UNKNOWN


@lru_cache(maxsize=64)
def _inside(text: bytes) -> str:
    """The one licence that stands somewhere in a text as a whole."""
    if len(text) > MAX_BYTES:
        return UNKNOWN
    whole = text.decode("utf-8", "replace")
    found = {one.id for one in identify_license(whole, 0) if one.end - one.start >= MIN_CHARS}
    if not found:
        near = licencetexts.similar(whole)
        return near.id if near is not None and near.end - near.start >= MIN_CHARS else UNKNOWN
    return found.pop() if len(found) == 1 else UNKNOWN
