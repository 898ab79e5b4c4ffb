"""Runs datasette over one database until it is stopped.

Promises: the file is only read, by this page's SQL as much as by ours, and may
be written by workers meanwhile: each page sees what is committed then (in a
folder where we can make no files, what was there when we began). Only
this machine can connect unless another host is named, and then too a page of
somebody else's cannot: requests must name the address that is listened on,
unless that is all of them (0.0.0.0).
"""

import asyncio
import re
import signal
import socket
import sqlite3
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from datasette.app import Datasette
from datasette.database import Database
from datasette.plugins import pm

from trustmine.db.connect import connect, uri
from trustmine.errors import TrustmineError
from trustmine.web import links
from trustmine.web.describe import DATABASE, metadata

LOOPBACK = "127.0.0.1"
PORT = 8001  # datasette's own
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@\[\]]+))(?::\d+)?")  # of a request: name or address, maybe a port
ANY_HOST = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not listened on

# One person looks at a database that may hold a million commits: queries may
# take longer than datasette's second for a public site, and nothing is guessed.
SETTINGS = {
    "sql_time_limit_ms": 10_000,
    "facet_time_limit_ms": 3_000,
    "suggest_facets": False,  # tries every column of every page; metadata.yaml names the useful ones
    "default_page_size": 50,
    "max_returned_rows": 2_000,
    "truncate_cells_html": 1_000,  # the page of a row shows it whole
    "default_cache_ttl": 0,  # workers write: no page is worth keeping
    "allow_download": False,  # `trustmine backup` makes a copy that is whole
    "num_sql_threads": 4,
}


class ReadOnly(Database):  # type: ignore[misc]  # datasette has no types
    """The database of a file with any name, with no way to write to it."""

    def connect(self, write: bool = False) -> sqlite3.Connection:
        if write:
            raise sqlite3.OperationalError("This database is only read here")
        address = uri(Path(self.path), read_only=True)  # mode=ro, and immutable where a reader can make no files
        conn = sqlite3.connect(address, uri=True, check_same_thread=False)
        conn.execute("PRAGMA query_only = ON")
        self._all_file_connections.append(conn)
        return conn


def site(db: Path) -> Any:
    """The datasette instance that shows the database at `db`. Raises DatabaseError."""
    connect(db, read_only=True).close()  # says what is wrong with the file, if anything
    if not pm.is_registered(links):
        pm.register(links)
    # Where rich is installed, datasette prints a traceback with all local variables
    # for every mistake in somebody's SQL. The page says what was wrong; that will do.
    pm.get_plugin("datasette.handle_exception").rich = None
    datasette = Datasette(
        files=[],
        metadata=metadata(db),
        settings=SETTINGS,
        static_mounts=[("assets", str(Path(__file__).with_name("static")))],
    )
    datasette.remove_database("_memory")
    datasette.add_database(ReadOnly(datasette, str(db)), name=DATABASE)
    return datasette


def serve(
    db: Path,
    host: str = LOOPBACK,
    port: int = PORT,
    open_browser: bool = False,
    ready: Callable[[str], object] | None = None,
) -> int:
    """Show the database at `db` until SIGINT or SIGTERM; the exit status.

    `ready` is told the address once pages can be fetched; port 0 takes a free
    one. Raises TrustmineError if the file or the address cannot be used.
    """
    datasette = site(db)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if ready is not None:
                ready(url)
            if open_browser:
                webbrowser.open(url)

    app = _asked_by_name(datasette.app(), host)
    server = Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))

    async def run() -> None:
        await datasette.invoke_startup()
        await server.serve(sockets=[listening])

    # uvicorn closes its connections on a signal and then sends it again: by then
    # everything is done, and being stopped is how this ends.
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
        listening.close()
        datasette.get_database(DATABASE).close()
    return 0


def _asked_by_name(app: Any, host: str) -> Any:
    """The application, for requests whose Host is the one listened on.

    Else a page of a stranger could let its own name lead to this machine (DNS
    rebinding) and read what is shown here with the browser's help. Who listens
    on all addresses is asked by names that nobody knows here.
    """
    if host in ANY_HOST:
        return app
    names = {host.lower(), *(("localhost", LOOPBACK, "::1") if _is_loopback(host) else ())}

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked = _HOST.fullmatch(dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower())
            if asked is None or (asked[1] or asked[2]) not in names:
                await send(
                    {"type": "http.response.start", "status": 421, "headers": [(b"content-type", b"text/plain")]}
                )
                await send({"type": "http.response.body", "body": b"This server is not asked by that name.\n"})
                return
        await app(scope, receive, send)

    return checked


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or host == "::1" or host.startswith("127.")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise TrustmineError(f"Cannot listen: {error}", f"{host}:{port}", "Try another --port") from error
    return listening
