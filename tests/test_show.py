"""`show`: what is said of a fix."""

from pathlib import Path

import pytest
from web_helpers import SAMPLES, make_db

from trustmine import show


@pytest.mark.parametrize(
    ("deleted", "about", "said"),
    [
        ("[3]", "[3]", ["the fix deletes lines [3] of it"]),
        ("[]", "[3]", ["the fix deletes no line of it", "the fix inserts lines at [3]"]),
        ("[2, 3]", "[3, 4]", ["the fix deletes lines [2, 3] of it", "the fix inserts lines at [4]"]),
    ],
)
def test_where_a_fix_deletes_and_where_it_only_inserts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], deleted: str, about: str, said: list[str]
) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    (commit_id,) = conn.execute("SELECT min(commit_id) FROM masks").fetchone()
    conn.execute("UPDATE functions SET deleted_lines = ?, fix_lines = ?", (deleted, about))
    conn.execute("""UPDATE keyword_matches SET crash_words = '["asan"]', rules = '["keywords", "crash_words"]'""")
    show.render(conn, commit_id)
    out = capsys.readouterr().out
    for sentence in [*said, "the fix is about 1 of them"]:
        assert sentence in out
    assert ("inserts lines" in out) == any("inserts" in sentence for sentence in said)
    assert "Finding: It is wrong." in out
    assert "keywords, crash words" in out
    assert "asan" in out
    conn.close()
