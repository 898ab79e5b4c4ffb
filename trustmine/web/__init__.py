"""The database in a browser: datasette with our descriptions, queries and links."""

from trustmine.web.serve import serve

__all__ = ["serve"]
