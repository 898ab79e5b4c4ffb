"""Bytes to text and back, without a byte lost.

Messages, paths and patches are bytes in git, mostly but not always UTF-8.
`decode` always finds a codec for which `encode(text, codec)` gives the bytes
back, and the text never holds surrogates, so that it can be stored in SQLite
and printed. It may hold NUL.
"""

import codecs
import re

UTF_8 = "utf-8"
LATIN_1 = "latin-1"  # maps each byte to one character: never fails

# Names that git's `encoding` header may plausibly hold; anything else is not looked up.
_CODEC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:+-]{0,39}")
# Codecs of Python that are no character sets (and that take quadratic time, for hostile input).
_NOT_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "utf-7"})


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """(text, codec) with encode(text, codec) == data.

    The declared codec first, if Python knows it and the bytes survive the
    round trip; then UTF-8; then Latin-1, which takes any bytes.
    """
    codec = _charset(declared) if declared else None
    if codec is not None and codec != UTF_8:
        try:
            text = data.decode(codec)
            text.encode(UTF_8)  # refuses surrogates
            if text.encode(codec) == data:
                return text, codec
        except UnicodeError:
            pass  # wrongly declared: the bytes decide
    try:
        return data.decode(UTF_8), UTF_8
    except UnicodeDecodeError:
        return data.decode(LATIN_1), LATIN_1


def encode(text: str, codec: str) -> bytes:
    """The bytes that `decode` got."""
    return text.encode(codec)


def is_utf_8(text: str) -> bool:
    """Whether it can be written in UTF-8; not so where Python stands for other bytes in a name (PEP 383)."""
    try:
        text.encode(UTF_8)
    except UnicodeEncodeError:
        return False
    return True


def _charset(name: str) -> str | None:
    """Python's name of a character set, None if it has none of that name."""
    if not _CODEC_NAME.fullmatch(name):
        return None
    try:
        info = codecs.lookup(name)
        "".encode(info.name)  # LookupError for codecs that are not text encodings, such as zlib
    except (LookupError, UnicodeError):
        return None
    if info.name in _NOT_CHARSETS:
        return None
    return LATIN_1 if info.name == "iso8859-1" else info.name
