"""A patch's identity: the same for cherry-picks and branch copies, as `git patch-id --stable` has it."""

import hashlib
import re

_FILE = re.compile(rb"^diff ", re.MULTILINE)
_SPACE = re.compile(rb"[ \t\n\r\f\v]+")
_LEFT_OUT = (b"@@ ", b"index ", b"\\ ")  # where a hunk lies, which blobs, and whether a last line ends


def patch_id(patch: bytes) -> str | None:
    """40 hexadecimal digits, or None for a patch that changes no text.

    White space, line numbers and the order of files do not count. Of files
    that git calls binary only the names do.
    """
    total, has_lines = 0, False
    for start in [match.start() for match in _FILE.finditer(patch)]:
        match = _FILE.search(patch, start + 1)
        part = patch[start : match.start() if match else len(patch)]
        lines = [line for line in part.split(b"\n") if not line.startswith(_LEFT_OUT)]
        has_lines = has_lines or any(line.startswith((b"-", b"+")) for line in lines)
        digest = hashlib.sha1(_SPACE.sub(b"", b"".join(lines)), usedforsecurity=False).digest()
        total += int.from_bytes(digest, "little")  # the order of files does not count: git adds with carry, too
    return (total % 2**160).to_bytes(20, "little").hex() if has_lines else None
