"""The pages, fetched from a real server process on a free port of this machine."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import without_override
from web_helpers import SAMPLES, Row, add, make_db

from trustmine.errors import TrustmineError
from trustmine.web import serve
from trustmine.web.describe import DATABASE, metadata

PROGRAM = """
import sys
from pathlib import Path
from trustmine.web import serve
sys.exit(serve(Path(sys.argv[1]), port=0, ready=lambda url: print(url, flush=True)))
"""


@dataclass
class Site:
    url: str
    db: Path
    process: subprocess.Popen[str]

    def get(self, path: str, **query: str) -> str:
        address = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        with urllib.request.urlopen(address, timeout=30) as answer:
            return str(answer.read().decode("utf-8"))

    def rows(self, path: str, **query: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.get(path + ".json", _shape="array", **query))
        return found


def start(db: Path, before: tuple[str, ...] = ()) -> Site:
    """A server of its own; `before` comes before its command."""
    said = db.parent.with_name(f"{db.parent.name}.said")
    with said.open("w") as errors:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", PROGRAM, str(db)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    with process.stdout:
        url = process.stdout.readline().strip()
    assert url, said.read_text()
    return Site(url, db, process)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # A name that would be cut short, or decoded, as part of an address.
    db = tmp_path_factory.mktemp("serve") / "my #1 100%25?.db"
    make_db(db, SAMPLES).close()
    running = start(db)
    yield running
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=20) == 0


def test_a_database_in_a_folder_where_nothing_may_be_written_is_shown(tmp_path: Path) -> None:
    before, db = without_override(), tmp_path / "shared" / "100%25 #1?.db"
    db.parent.mkdir()
    make_db(db, SAMPLES).close()
    db.parent.chmod(0o555)
    try:
        running = start(db, before)
        try:
            assert len(running.rows(f"{DATABASE}/commits")) == len(SAMPLES)
        finally:
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(timeout=20) == 0
    finally:
        db.parent.chmod(0o755)
    assert [path.name for path in db.parent.iterdir()] == [db.name]


def test_only_this_machine_is_listened_on(site: Site) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", site.url)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("127.0.0.1:8001", 200),
        ("LOCALHOST", 200),
        ("[::1]:1", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8001", 421),
        ("evil.example@127.0.0.1", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_a_page_of_somebody_else_cannot_ask_under_its_own_name(site: Site, name: str, status: int) -> None:
    address = urllib.parse.urlsplit(site.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as asking:
        asking.sendall(f"GET /trustmine/funnel.json HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: asking.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"s0_1" in answer) == (status == 200)


def test_the_first_page_leads_to_pages_that_exist(site: Site) -> None:
    links = re.findall(r'href="(/[^"]*)"', site.get(""))
    assert {"/trustmine/funnel", "/trustmine/commit_log", "/trustmine/training_samples"} <= set(links)
    for link in links:
        assert site.get(link[1:])


def test_every_table_view_and_query_has_a_page(site: Site) -> None:
    pages = metadata(site.db)["databases"][DATABASE]
    overview = site.get(DATABASE)
    for name in [*pages["tables"], *pages["queries"]]:
        assert f'href="/{DATABASE}/{name}"' in overview
        assert "<h1" in site.get(f"{DATABASE}/{name}")


def test_the_tables_behind_full_text_search_are_out_of_the_way(site: Site) -> None:
    tables = json.loads(site.get(f"{DATABASE}.json"))["tables"]
    hidden = {table["name"] for table in tables if table["hidden"]}
    assert {name for name in hidden if "_fts" not in name} == set()
    assert {table["name"] for table in tables if "_fts" in table["name"]} == hidden


def test_columns_are_explained_with_the_words_of_the_schema(site: Site) -> None:
    assert "the last stage passed" in site.get(f"{DATABASE}/commits")
    assert "rows that have passed this stage, wherever they are now" in site.get(f"{DATABASE}/funnel")


def test_foreign_keys_times_and_shas_can_be_read(site: Site) -> None:
    sha = Row("zlib", "one").sha
    page = site.get(f"{DATABASE}/commits")
    assert '<a href="/trustmine/repos/1">zlib</a>' in page
    assert "2020-09-13 12:26:40 UTC" in page
    assert f'href="/trustmine/commit?sha={sha}"' in page
    assert f'<a href="/trustmine/commits/1">{sha}</a>' in site.get(f"{DATABASE}/explanations")
    assert f'href="/trustmine/commit?sha={sha}"' in site.get(f"{DATABASE}/least_sure")


def test_a_commit_is_found_by_a_word_of_its_message_and_an_explanation_by_its_words(site: Site) -> None:
    found = site.rows(f"{DATABASE}/commit_log", _search="vil OR évil")
    assert found == []  # OR is a word like others unless asked for
    assert [row["sha"] for row in site.rows(f"{DATABASE}/commit_log", _search="évil")] == [
        Row("acme/curl", "three").sha
    ]
    assert len(site.rows(f"{DATABASE}/messages", _search="overflow")) == 6
    assert len(site.rows(f"{DATABASE}/search_explanations", words='impact "smashing" --')) == 6
    assert len(site.rows(f"{DATABASE}/search_explanations", words='"smashing')) == 6
    assert len(site.rows(f"{DATABASE}/search_explanations", words="impact smashing")) == 6


@pytest.mark.parametrize(
    "path",
    [
        "commit_log",
        "messages",
        "messages/1",
        "training_samples",
        "explanations",
        "instructions",
        "llm_calls_readable",
        "least_sure",
        "slowest_calls",
        "commit?sha=" + Row("zlib", "one").sha,
        "models",
        "functions/1",
    ],
)
def test_text_from_repositories_and_models_is_shown_as_text(site: Site, path: str) -> None:
    page = site.get(f"{DATABASE}/{path}")
    assert "&lt;" in page
    for active in ("<script>alert", "<img src=x", "<b>model", "</textarea> javascript"):
        assert active not in page
    assert "49" not in re.findall(r"\{\{ (\S+) \}\}", page)


def test_only_web_addresses_become_links_and_cannot_leave_their_attribute(site: Site) -> None:
    page = site.get(f"{DATABASE}/commit_log")
    assert "javascript:alert(1)" in page
    assert not re.search(r"""href=["']?\s*javascript:""", page, re.IGNORECASE)
    assert 'href="https://example.org/&#34;onmouseover=alert(1)"' in page


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM commits",
        "WITH x AS (SELECT 1) DELETE FROM commits",
        "INSERT INTO repos (name, path, ingested_at_s) VALUES ('x', 'x', 1)",
        "DROP VIEW funnel",
        "PRAGMA user_version = 9",
        "ATTACH 'other.db' AS other",
        "SELECT 1; DELETE FROM commits",
    ],
)
def test_sql_that_writes_is_refused(site: Site, sql: str) -> None:
    before = site.db.read_bytes()
    with pytest.raises(urllib.error.HTTPError) as refused:
        site.get(f"{DATABASE}", sql=sql)
    assert refused.value.code == 400
    with refused.value as answer:
        assert re.search(rb"must be a SELECT|may not contain|one statement|readonly|near", answer.read())
    assert site.db.read_bytes() == before
    assert not Path("other.db").exists()


def test_own_sql_can_be_asked(site: Site) -> None:
    assert site.rows(DATABASE, sql="SELECT count(*) AS n FROM commits") == [{"n": len(SAMPLES)}]


def test_the_file_itself_is_not_handed_out(site: Site) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        site.get(f"{DATABASE}.db")
    assert refused.value.code in (403, 404)
    refused.value.close()


def test_pages_show_what_workers_commit_and_work_while_one_is_writing(tmp_path: Path) -> None:
    writer = make_db(tmp_path / "t.db", SAMPLES)
    running = start(tmp_path / "t.db")
    try:
        writer.execute("BEGIN IMMEDIATE")
        add(writer, Row("zlib", "new"))
        assert len(running.rows(f"{DATABASE}/commit_log")) == len(SAMPLES)
        writer.execute("COMMIT")
        assert len(running.rows(f"{DATABASE}/commit_log")) == len(SAMPLES) + 1
        # No page keeps a transaction open: the log can be folded back into the file.
        assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    finally:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=20) == 0
    assert tmp_path.with_name(f"{tmp_path.name}.said").read_text() == ""
    writer.close()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    make_db(tmp_path / "t.db", ()).close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TrustmineError, match="Cannot listen"):
            serve(tmp_path / "t.db", port=taken.getsockname()[1])


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustmineError, match="no database"):
        serve(tmp_path / "none.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (a)")
    other.close()
    with pytest.raises(TrustmineError, match="another program"):
        serve(tmp_path / "other.db")


def test_plain_datasette_finds_search_and_views_without_our_configuration(tmp_path: Path) -> None:
    make_db(tmp_path / "plain.db", SAMPLES).close()

    def get(path: str) -> dict[str, object]:
        answer = subprocess.run(
            [sys.executable, "-m", "datasette", "serve", str(tmp_path / "plain.db"), "--get", path],
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, object] = json.loads(answer.stdout)
        return found

    tables = {table["name"]: table for table in get("/plain.json")["tables"]}  # type: ignore[attr-defined]
    assert (tables["messages"]["fts_table"], tables["explanations"]["fts_table"]) == (
        "messages_fts",
        "explanations_fts",
    )
    assert all(table["hidden"] == ("_fts" in name) for name, table in tables.items())
    assert len(get("/plain/messages.json?_search=overflow&_shape=objects")["rows"]) == 6  # type: ignore[arg-type]
    assert len(get("/plain/funnel.json?_shape=objects")["rows"]) == 12  # type: ignore[arg-type]
