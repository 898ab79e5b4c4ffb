"""How single cells are shown: a SHA leads to that commit's life, a time can be read.

Everything else is left to datasette, which shows text as text. What is put
into a page here is a SHA or a number that was checked to be one.
"""

import re
from datetime import UTC, datetime
from typing import Any

from datasette import hookimpl
from markupsafe import Markup

from trustmine.web.describe import DATABASE

_SHA = re.compile(r"[0-9a-f]{40}")


@hookimpl  # type: ignore[untyped-decorator]
def render_cell(value: Any, column: str, database: str, datasette: Any) -> Markup | str | None:
    """The cell's content, or None to leave it to datasette."""
    if database != DATABASE:
        return None
    if column == "sha" and isinstance(value, str) and _SHA.fullmatch(value):
        href = f"{datasette.urls.query(DATABASE, 'commit')}?sha={value}"
        return Markup('<a href="{}" title="Everything known about this commit">{}</a>').format(href, value)
    if column.endswith(("_time_s", "_at_s", "_until_s")) and isinstance(value, int | float):
        return readable(value)
    return None


def readable(at_s: float) -> str | None:
    """A time as '2023-10-11 06:34:19 UTC'; None if no calendar holds it."""
    try:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return None
