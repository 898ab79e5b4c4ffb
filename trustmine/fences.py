"""Code blocks of Markdown texts: `prompts.fenced` writes them, this reads them."""

import re
from dataclasses import dataclass

_FENCED = re.compile(r"^(?P<fence>`{3,})[^`\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where its fence begins in the text, and the lines in it."""

    start: int
    code: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks in the order of the text."""
    return [Block(match.start(), match["code"]) for match in _FENCED.finditer(text)]
