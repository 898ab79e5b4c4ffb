"""No byte is lost between git and the database."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trustmine import text

DECLARED = ["ISO-8859-1", "ISO8859-2", "cp1252", "EUC-JP", "Shift_JIS", "UTF-16", "utf-7", "GB18030", "utf8", "UTF-8"]
DECLARED += [
    "zlib",
    "rot13",
    "idna",
    "punycode",
    "unicode_escape",
    "undefined",
    "no such",
    "../os",
    "",
    "a\0b",
    "é",
    "x" * 500,
]


@settings(max_examples=500, deadline=None)
@given(st.binary() | st.text().map(lambda t: t.encode("utf-8", "surrogatepass")), st.sampled_from(DECLARED) | st.none())
@example(b"\xed\xa0\x80", "UTF-8")  # a surrogate in UTF-8
@example(b"+2AA-", "utf-7")  # a surrogate in UTF-7
@example(b"\xff\xfeA\x00", "UTF-16")
def test_bytes_survive_the_round_trip_and_text_holds_no_surrogates(data: bytes, declared: str | None) -> None:
    decoded, codec = text.decode(data, declared)
    assert text.encode(decoded, codec) == data
    assert decoded.encode("utf-8").decode("utf-8") == decoded


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=50))
def test_any_declared_codec_name_is_harmless(declared: str) -> None:
    decoded, codec = text.decode(b"caf\xe9\0", declared)
    assert text.encode(decoded, codec) == b"caf\xe9\0"


@pytest.mark.parametrize(
    ("data", "declared", "wanted"),
    [
        (b"plain", None, ("plain", "utf-8")),
        ("naïve".encode(), None, ("naïve", "utf-8")),
        (b"na\xefve", None, ("naïve", "latin-1")),
        (b"na\xefve", "ISO-8859-1", ("naïve", "latin-1")),
        ("naïve".encode(), "ISO-8859-1", ("naÃ¯ve", "latin-1")),
        (b"\xb9", "ISO-8859-2", ("š", "iso8859-2")),
        (b"\xb9", "no-such-codec", ("¹", "latin-1")),
        ("š".encode(), "ascii", ("š", "utf-8")),
        (b"a\0b", None, ("a\0b", "utf-8")),
        (b"x\x9c", "zlib", ("x\x9c", "latin-1")),
    ],
)
def test_declared_codec_then_utf_8_then_latin_1(data: bytes, declared: str | None, wanted: tuple[str, str]) -> None:
    assert text.decode(data, declared) == wanted
