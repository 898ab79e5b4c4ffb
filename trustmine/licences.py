"""Under which licence a file stands, as far as the repository says so: an SPDX expression, or `unknown`.

What the file itself says (`SPDX-License-Identifier`) comes first, then the
licence file at the top of the repository. A text counts only if it is one
licence for the greater part; nothing is guessed from anything else.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from licenseclassifier import identify_license
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

UNKNOWN = "unknown"
MAX_BYTES = 1_000_000  # of a licence file; 0.6 s on text that is none (2026-11)

_HEAD_BYTES = 8_192  # where in a file its own licence may stand
_LINE = re.compile(rb"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() \t-]{1,200})")
_NAME = re.compile(rb"(?:licen[cs]e|copying|unlicen[cs]e)(?:[.-][\w.+-]{1,40})?", re.IGNORECASE)


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


def of_texts(texts: Iterable[bytes]) -> str:
    """The one licence that all of these texts are; `unknown` if there is none, or more than one."""
    found = {_of_text(text) for text in texts}
    return found.pop() if len(found) == 1 else UNKNOWN


@lru_cache(maxsize=64)
def _of_text(text: bytes) -> str:
    if len(text) > MAX_BYTES:
        return UNKNOWN
    whole = text.decode("utf-8", "replace")
    found = max(identify_license(whole), key=lambda one: one.end - one.start, default=None)
    return found.id if found is not None and 2 * (found.end - found.start) > len(whole.strip()) else UNKNOWN
