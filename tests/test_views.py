"""The views of schema.sql, against counts made in Python."""

import sqlite3
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from web_helpers import SAMPLES, STAGES, Row, make_db

_LABEL = "INSERT INTO labels (commit_id, source, identifier, label, cwe, labelled_at_s)"

REASONS = ("no_keyword", "merge", "not_c", "undecided")


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Any mix of repositories, stages, outcomes and claims that the schema allows."""
    found = []
    for number in range(draw(st.integers(0, 25))):
        status = draw(st.sampled_from(STAGES))
        outcome = "done" if status == "s4" else draw(st.sampled_from(["open", "rejected", "failed"]))
        found.append(
            Row(
                repo=draw(st.sampled_from(["a", "b"])),
                name=f"n{number}",
                status=status,
                outcome=outcome,
                reason=draw(st.sampled_from(REASONS)) if outcome == "rejected" else None,
                is_claimed=outcome == "open" and draw(st.booleans()),
                lease_until_s=draw(st.sampled_from([1.0, 4e9])),  # long over, or far ahead
                message="m",
            )
        )
    return found


def _fresh(tmp_path_factory: object, content: list[Row]) -> sqlite3.Connection:
    folder = tmp_path_factory.mktemp("views")  # type: ignore[attr-defined]
    return make_db(Path(folder) / "t.db", content)


@settings(max_examples=40, deadline=None)
@given(content=rows())
def test_the_funnel_counts_as_a_plain_loop_over_the_commits_does(tmp_path_factory: object, content: list[Row]) -> None:
    expected = {stage: Counter[str]() for stage in STAGES}
    for row in content:
        place = STAGES.index(row.status)
        for stage in STAGES[: place + 1]:
            expected[stage]["passed"] += 1
        if row.outcome != "done":
            is_held = row.is_claimed and row.lease_until_s == 4e9
            column = {"open": "claimed" if is_held else "pending"}.get(row.outcome, row.outcome)
            expected[STAGES[place + 1]][column] += 1
    conn = _fresh(tmp_path_factory, content)
    counted = conn.execute("SELECT stage, pending, claimed, passed, failed, rejected FROM funnel").fetchall()
    columns = ("pending", "claimed", "passed", "failed", "rejected")
    assert counted == [(stage, *(expected[stage][c] for c in columns)) for stage in STAGES]
    conn.close()


@settings(max_examples=25, deadline=None)
@given(content=rows())
def test_pending_rows_and_rejects_are_counted_where_they_are(tmp_path_factory: object, content: list[Row]) -> None:
    waiting, rejects = Counter[tuple[str, str, bool]](), Counter[tuple[str, str]]()
    for row in content:
        after = STAGES[min(STAGES.index(row.status) + 1, len(STAGES) - 1)]
        if row.outcome == "open":
            waiting[after, row.repo, row.is_claimed and row.lease_until_s == 4e9] += 1
        if row.reason is not None:
            rejects[after, row.reason] += 1
    conn = _fresh(tmp_path_factory, content)
    found = conn.execute("SELECT stage, repo, pending, claimed FROM pending_per_stage").fetchall()
    keys = sorted({(stage, repo) for stage, repo, _ in waiting}, key=lambda k: (STAGES.index(k[0]), k[1]))
    assert found == [(*key, waiting[*key, False], waiting[*key, True]) for key in keys]
    reasons = conn.execute("SELECT stage, reason, n FROM rejects_by_reason").fetchall()
    assert reasons == sorted(((*key, n) for key, n in rejects.items()), key=lambda r: (STAGES.index(r[0]), -r[2], r[1]))
    conn.close()


def test_a_training_sample_is_one_row_per_finished_commit_with_its_facts_in_order(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    conn.row_factory = sqlite3.Row
    samples = conn.execute("SELECT * FROM training_samples").fetchall()
    assert [s["sha"] for s in samples] == [r.sha for r in reversed(SAMPLES) if r.outcome == "done"]
    one = samples[-1]
    assert (one["repo"], one["split"], one["function"], one["path"]) == ("zlib", "train", "f", "a.c")
    assert one["cve"] == "CVE-2023-0001 CVE-2023-0002 CVE-2023-0003"
    assert (one["cwe"], one["cwe_by_model"], one["p_fix"], one["label_source"]) == ("CWE-787", "CWE-121", 0.7, "model")
    assert one["masked_pre"].replace("    <MASK_1>\n", one["masked_block"]) == one["pre_text"]
    assert one["pre_text"].replace(one["masked_block"], one["fixed_block"]) == one["post_text"]
    assert one["impact"] == "impact 1 smashing\n\nimpact 2 smashing"
    assert one["root_cause"].index("cause 1") < one["root_cause"].index("cause 2")
    assert (one["n_segments"], one["n_context"], one["n_instructions"]) == (2, 1, 6)
    conn.close()


def test_the_log_shows_the_first_line_of_any_message(tmp_path: Path) -> None:
    messages = {"one\ntwo": "one", "one": "one", "": "", "\r\n": "", "a\r\nb": "a", "tab\there\n": "tab\there"}
    conn = make_db(tmp_path / "t.db", [Row("r", str(i), message=m) for i, m in enumerate(messages)])
    assert [s for (s,) in conn.execute("SELECT subject FROM commit_log ORDER BY commit_id")] == list(messages.values())
    conn.close()


def test_the_most_promising_rows_that_wait_for_the_model_come_first(tmp_path: Path) -> None:
    waiting = [Row("r", f"{i}", "s0_2", message=f"Fix overflow {i}\n\nat all") for i in range(4)]
    conn = make_db(tmp_path / "t.db", [*waiting, Row("r", "before", "s0_1"), Row("r", "judged", "s0_3")])
    conn.execute("UPDATE priorities SET vocabulary = 5, priority = 12.5 WHERE commit_id IN (2, 4)")
    found = conn.execute("SELECT commit_id, subject, priority, vocabulary, found FROM most_promising").fetchall()
    assert [row[0] for row in found] == [2, 4, 1, 3]
    assert found[0][1:4] == ("Fix overflow 1", 12.5, 5.0)
    assert "overflow*" in found[0][4]
    plan = [step for *_, step in conn.execute("EXPLAIN QUERY PLAN SELECT * FROM most_promising LIMIT 20")]
    assert "USING INDEX commits_best (status=?" in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan), plan
    conn.close()


def test_identifiers_come_from_messages_and_from_lists_that_say_yes(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", [Row("r", "x", "s0_1")])
    conn.execute(f"{_LABEL} VALUES (1, 'list', 'GHSA-aaaa-bbbb-cccc', 'yes', NULL, 1)")
    conn.execute(f"{_LABEL} VALUES (1, 'list', 'XSA-1', 'yes', NULL, 1)")
    conn.execute(f"{_LABEL} VALUES (1, 'bare list', '', 'yes', NULL, 1)")
    assert sorted(conn.execute("SELECT kind, value, source FROM commit_identifiers")) == [
        ("CVE", "CVE-2023-0001", "message"),
        ("CVE", "CVE-2023-0002", "list"),
        ("CVE", "CVE-2023-0003", "list"),
        ("CWE", "CWE-787", "list"),
        ("GHSA", "GHSA-aaaa-bbbb-cccc", "list"),
        ("other", "XSA-1", "list"),
    ]
    conn.close()


def test_calls_are_shown_with_names_and_speed(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", [Row("r", "x", "s0_3")])
    conn.execute(
        "INSERT INTO llm_calls SELECT commit_id, stage, 'other', task, prompt_name, prompt_hash, 'r', model_id, "
        "'{}', '', 'label', NULL, 5, 0, 0, 0.0, 1 FROM llm_calls"
    )
    found = conn.execute(
        "SELECT repo, sha, stage, model, tokens_per_s FROM llm_calls_readable ORDER BY duration_ms DESC"
    ).fetchall()
    sha = Row("r", "x").sha
    assert found == [
        ("r", sha, "s0_3", "tiny <b>model</b>", 2000.0),  # 100 - 20 cached + 40 tokens in 60 ms
        ("r", sha, "s0_3", "tiny <b>model</b>", None),  # no time, no speed
    ]
    conn.close()


def test_the_counts_read_one_index_and_no_row_of_commits(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    for view in ("funnel", "rejects_by_reason"):
        plan = [step for *_, step in conn.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {view}")]
        scans = [step for step in plan if step.startswith("SCAN commits")]
        assert scans
        allowed = (
            "USING COVERING INDEX commits_funnel",
            "USING INDEX commits_claimed",
        )  # the latter holds claimed rows alone
        assert all(any(a in scan for a in allowed) for scan in scans), plan
    conn.close()
