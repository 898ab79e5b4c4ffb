"""An evaluation asks each row once, changes nothing unasked, and says where its figures come from."""

import csv
import json
import math
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine import calibrate, cli, console, evaluate, evaluation, evaluation_report, ingest, pipeline, tools, worker
from trustmine.calibration import LABELS, SPELLINGS
from trustmine.config import Settings
from trustmine.db import recipes
from trustmine.db.claims import Scope
from trustmine.db.connect import connect
from trustmine.demo import write_demo, write_known_fixes
from trustmine.errors import TrustmineError
from trustmine.evaluate import Evaluated
from trustmine.llm.base import ContextOverflow, Engine, ModelInfo, NoAnswer
from trustmine.prompts import Prompts
from trustmine.records import Completion, Request

_, OPPOSITE = Prompts().get("s0_3_classify").questions
SETTINGS = Settings(calibration_rows=12, rationale="none")


class Judge:
    """An engine that leans to yes, more so where the message names a bound, a length or a pointer."""

    capacity = 3
    info = ModelInfo("a" * 64, "judge [bold]$x", "/judge.gguf", 1, 1, "toy", 1, 4096, "judge 1", 4096)

    def __init__(self, turned: bool = False, overflow: str = "no message holds this") -> None:
        self.asked: list[Request] = []
        self._queue: list[tuple[int, Request]] = []
        self._turned, self._overflow = turned, overflow

    def request_hash(self, request: Request) -> str:
        return f"{hash(request.messages)}{self._turned}"

    def submit(self, ticket: int, request: Request) -> None:
        self._queue.append((ticket, request))

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        ticket, request = self._queue.pop()
        self.asked.append(request)
        evidence, _, asked = request.messages[-1].content.rpartition("\n\n")
        if self._overflow in evidence:
            return [(ticket, ContextOverflow(9999, 1, 4096))]
        said = sum(evidence.count(word) for word in ("bound", "length", "NULL", "overflow", "free"))
        lean = 1 + math.tanh(said - 2) + len(evidence) % 7 / 7
        is_turned = self._turned != (asked == OPPOSITE)
        weights = [math.exp(-lean if is_turned else lean), 1.0, 0.1 + len(evidence) % 5 / 50]
        p = dict(zip(LABELS, weights, strict=True))
        # All with a capital letter, so that equal weights give equal bits.
        logprobs = {
            text: math.log(p[label] / sum(weights)) if text[0].isupper() else -800.0
            for text, label in SPELLINGS.items()
        }
        return [
            (ticket, Completion("", "label", logprobs, 9, 0, 0, 1.0, self.request_hash(request), "rendered")),
        ]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo through s0_2, with its list beside it."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_demo(folder / "repo")
    write_known_fixes(folder / "known.csv")
    with closing(connect(folder / "trustmine.db", create=True)) as conn:
        ingest.ingest(conn, ingest.find(str(folder / "repo")), name="demo")
        for stage in ("s0_1", "s0_2"):
            worker.advance(conn, stage, SETTINGS)
    return folder


@pytest.fixture
def copy(filled: Path, conn: sqlite3.Connection) -> sqlite3.Connection:
    """A database of one's own."""
    with closing(connect(filled / "trustmine.db")) as source:
        source.backup(conn)
    return conn


def opened(conn: sqlite3.Connection, judge: Judge) -> tuple[Engine, int]:
    return judge, recipes.ensure_model(conn, judge.info)


def run(conn: sqlite3.Connection, filled: Path, judge: Judge, **more: object) -> Evaluated:
    sample = evaluate.choose(conn, filled / "known.csv", **more)  # type: ignore[arg-type]
    return evaluate.evaluate(conn, SETTINGS, opened(conn, judge), sample, show=console.progress)


def content(conn: sqlite3.Connection) -> dict[str, object]:
    tables = ("commits", "verdicts", "steps", "labels", "calibrations", "recipes")
    return {table: conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}


def test_known_fixes_and_others_that_passed_s0_2_are_taken_in_the_order_of_their_shas(
    copy: sqlite3.Connection, filled: Path
) -> None:
    with (filled / "known.csv").open(encoding="utf-8") as file:
        listed = {row["commit"] for row in csv.DictReader(file)}
    passed = [sha for _, sha in calibrate.passed(copy)]
    sample = evaluate.choose(copy, filled / "known.csv", n_others=9, n_known=5)
    shas = dict(calibrate.passed(copy))
    assert [shas[i] for i in sample.fixes] == [sha for sha in sorted(passed) if sha in listed][:5]
    assert [shas[i] for i in sample.others] == [sha for sha in sorted(passed) if sha not in listed][:9]
    assert (sample.n_listed, sample.n_passed) == (len(listed), len(passed))
    assert sample.n_listed_passed == len(listed & set(passed)) > 5


def test_what_another_list_calls_a_fix_is_no_other_commit(copy: sqlite3.Connection, filled: Path) -> None:
    first = evaluate.choose(copy, filled / "known.csv").others[0]
    copy.execute(
        "INSERT INTO labels (commit_id, source, label, labelled_at_s) VALUES (?, 'elsewhere', 'yes', 0)",
        (first,),
    )
    assert first not in evaluate.choose(copy, filled / "known.csv").others
    copy.execute("UPDATE labels SET label = 'no'")
    assert first in evaluate.choose(copy, filled / "known.csv").others


def test_a_commit_that_two_repositories_have_counts_once(copy: sqlite3.Connection, filled: Path) -> None:
    sample = evaluate.choose(copy, filled / "known.csv")
    copy.execute("INSERT INTO repos (name, path, ingested_at_s) VALUES ('fork', '/fork', 0)")
    copy.execute(
        """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s, status, outcome, reject_stage,
                                reject_reason)
           SELECT id + 1000, 2, sha, parents, author_time_s, commit_time_s, status, outcome, reject_stage,
                  reject_reason FROM commits"""
    )
    copy.execute("INSERT INTO steps SELECT commit_id + 1000, stage, recipe_id FROM steps")
    assert evaluate.choose(copy, filled / "known.csv") == sample
    fork = evaluate.choose(copy, filled / "known.csv", Scope(repo_id=2))
    assert [i - 1000 for i in fork.fixes + fork.others] == sample.fixes + sample.others


def test_each_row_is_asked_once_and_nothing_else_changes(copy: sqlite3.Connection, filled: Path) -> None:
    judge = Judge()
    before = content(copy)
    found = run(copy, filled, judge)
    assert content(copy) == before
    n_recorded = copy.execute("SELECT count(*) FROM llm_calls WHERE stage = 's0_3'").fetchone()[0]
    assert n_recorded == len(judge.asked) == len({request.messages for request in judge.asked})
    again = Judge()
    assert run(copy, filled, again) == found
    assert again.asked == []
    assert found.now is not None, "as s0_3 would begin"
    assert found.now.method == "batch"


def test_an_evaluation_that_was_interrupted_goes_on(copy: sqlite3.Connection, filled: Path) -> None:
    whole = len(evaluate.choose(copy, filled / "known.csv").fixes)
    first = Judge()
    interrupted = 0

    class Interrupting(Judge):
        def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
            nonlocal interrupted
            if len(first.asked) == 6:
                interrupted += 1
                raise KeyboardInterrupt
            return super().poll()

    broken = Interrupting()
    broken.asked = first.asked
    with pytest.raises(KeyboardInterrupt):
        run(copy, filled, broken)
    assert interrupted == 1
    assert copy.execute("SELECT count(*) FROM llm_calls").fetchone()[0] == 6
    second = Judge()
    found = run(copy, filled, second)
    assert {request.messages for request in first.asked}.isdisjoint({request.messages for request in second.asked})
    assert sum(found.is_fix) == whole


def test_rows_that_lists_have_labelled_are_asked_too(copy: sqlite3.Connection, filled: Path) -> None:
    from trustmine import labels

    labels.label(copy, filled / "known.csv")
    worker.advance(copy, "s0_3", SETTINGS, scope=Scope(is_labelled=True))
    assert copy.execute("SELECT count(*) FROM llm_calls").fetchone()[0] == 0
    sample = evaluate.choose(copy, filled / "known.csv")
    assert len(run(copy, filled, Judge()).rows) == len(sample.fixes) + len(sample.others)


def test_the_figures_are_those_of_the_rows(copy: sqlite3.Connection, filled: Path) -> None:
    found = run(copy, filled, Judge())
    data = evaluation_report.as_data(found)
    assert json.loads(json.dumps(data))["roc_auc"] == evaluation.roc_auc(found.scores, found.is_fix)
    assert data["n_fixes"] + data["n_others"] == len(found.rows)
    assert data["share_in_history"] == found.sample.n_listed_passed / found.sample.n_passed
    assert [way["name"] for way in data["probabilities"]] == ["raw", "batch", "temperature", "platt", "share"]
    assert {row.is_fitted for row in found.rows} == {True, False}
    assert all(row.is_fitted == (row.sha[-1] in "02468ace") for row in found.rows)
    for kind, is_fix in (("fixes", True), ("others", False)):
        assert sum(data["labels_now"][kind].values()) == found.is_fix.count(is_fix)
    for at in data["thresholds"]:
        kept = [row for row in found.rows if row.label != "undecided" and row.p_now >= at["p_fix_now"]]
        assert sum(row.is_fix for row in kept) / sum(found.is_fix) == pytest.approx(at["recall"])
        assert sum(row.is_fix for row in kept) / len(kept) == pytest.approx(at["precision"])


def test_what_a_threshold_keeps_is_what_s0_3_says_yes_to(copy: sqlite3.Connection, filled: Path) -> None:
    sample = evaluate.choose(copy, filled / "known.csv")
    engine = opened(copy, Judge())
    settings = replace(SETTINGS, undecided_share=0.5)
    found = evaluate.evaluate(copy, settings, engine, sample, show=console.progress)
    n_fixes, n_others = sum(found.is_fix), len(found.rows) - sum(found.is_fix)
    decided = [row for row in found.rows if row.is_fix and row.label != "undecided"]
    assert 0 < len(decided) < n_fixes, "fixes of both kinds"
    data = evaluation_report.as_data(found)
    assert data["thresholds"][-1]["recall"] == pytest.approx(len(decided) / n_fixes), "no threshold keeps more"
    for at in data["thresholds"]:
        chosen = replace(settings, min_p_fix=at["p_fix_now"])
        rows = evaluate.evaluate(copy, chosen, engine, sample, show=console.progress).rows
        assert sum(row.label == "yes" for row in rows if row.is_fix) / n_fixes == pytest.approx(at["recall"])
        assert sum(row.label == "yes" for row in rows if not row.is_fix) / n_others == pytest.approx(at["fallout"])


def test_figures_are_json_also_where_all_rows_are_undecided(copy: sqlite3.Connection, filled: Path) -> None:
    sample = evaluate.choose(copy, filled / "known.csv")
    settings = replace(SETTINGS, undecided_share=1.0)
    found = evaluate.evaluate(copy, settings, opened(copy, Judge()), sample, show=console.progress)
    assert {row.label for row in found.rows} == {"undecided"}
    data = evaluation_report.as_data(found)
    json.dumps(data, allow_nan=False)
    assert data["thresholds"] == [], "none keeps a fix"
    assert evaluation_report.tables(found)[-1].rows == []


@given(st.floats(1e-12, 1))
def test_a_threshold_that_is_printed_lets_its_row_pass(p: float) -> None:
    assert p * 0.99 <= float(evaluation_report._rounded_down(p)) <= p


def test_with_a_prior_figures_in_the_history_follow_it(copy: sqlite3.Connection, filled: Path) -> None:
    sample = evaluate.choose(copy, filled / "known.csv")
    engine = opened(copy, Judge())
    found = evaluate.evaluate(copy, SETTINGS, engine, sample, prior=0.001, show=console.progress)
    data = evaluation_report.as_data(found)
    assert data["average_precision_in_history"] < data["average_precision"]
    assert data["thresholds"][-1]["precision_in_history"] < data["thresholds"][-1]["precision"]


def test_a_stored_fit_is_what_s0_3_uses_from_then_on(copy: sqlite3.Connection, filled: Path) -> None:
    judge = Judge()
    engine = opened(copy, judge)
    worker.advance(copy, "s0_3", SETTINGS, engine=engine)
    asked = len(judge.asked)
    found = run(copy, filled, judge)
    evaluate.store(copy, SETTINGS, engine[1], found)
    calibration = tools.context(copy, SETTINGS, engine[1]).calibration
    assert calibration is not None
    assert (calibration.method, calibration.hash) == ("known", found.fit.hash)
    after = [row["p_fix_after_fit"] for row in evaluation_report.as_data(found)["thresholds"]]
    present = tools.present_recipes(copy, SETTINGS, (judge.info, engine[1]))
    [stale] = [ids for stage, ids in recipes.stale(copy, present).items() if stage == "s0_3"]
    assert 2 * len(stale) == asked, "each row two questions"
    recipes.send_back(copy, "s0_3", stale)
    worker.advance(copy, "s0_3", SETTINGS, engine=engine)
    assert len(judge.asked) == asked, "verdicts are made anew without asking"
    methods = copy.execute("SELECT DISTINCT method FROM verdicts JOIN calibrations ON id = calibration_id").fetchall()
    assert methods == [("known",)]
    p_fix = [row[0] for row in copy.execute("SELECT p_fix FROM verdicts")]
    assert any(abs(p - after[0]) < 1e-9 for p in p_fix)
    again = run(copy, filled, judge)
    assert again.now == calibration
    assert "flatters itself" in " ".join(evaluation_report.notes(again))


def test_of_several_fits_the_one_chosen_last_is_in_force(copy: sqlite3.Connection, filled: Path) -> None:
    engine = opened(copy, Judge())
    for n_others in (8, 12, 8):
        found = run(copy, filled, Judge(), n_others=n_others)
        evaluate.store(copy, SETTINGS, engine[1], found)
        present = tools.context(copy, SETTINGS, engine[1]).calibration
        assert present is not None
        assert present.hash == found.fit.hash
    assert copy.execute("SELECT count(*) FROM calibrations").fetchone()[0] == 2


def test_a_fit_that_would_turn_the_ranking_round_is_not_stored(copy: sqlite3.Connection, filled: Path) -> None:
    judge = Judge(turned=True)
    found = run(copy, filled, judge)
    assert evaluation.roc_auc(found.scores, found.is_fix) < 0.5
    with pytest.raises(TrustmineError, match="below other commits"):
        evaluate.store(copy, SETTINGS, opened(copy, judge)[1], found)
    assert copy.execute("SELECT count(*) FROM calibrations").fetchone()[0] == 0
    assert "ranks worse than chance" in " ".join(evaluation_report.notes(found))
    few = replace(found, rows=(found.rows[0], found.rows[-1]))
    assert "better than chance is not shown" in " ".join(evaluation_report.notes(few))
    assert evaluation_report.as_data(few)["roc_auc_interval"] is None
    assert {row["p_fix_after_fit"] for row in evaluation_report.as_data(found)["thresholds"]} == {None}


def test_two_fixes_above_all_others_do_not_show_a_better_ranking_than_chance(
    copy: sqlite3.Connection, filled: Path
) -> None:
    found = run(copy, filled, Judge())
    fixes = [replace(row, score=99.0) for row in found.rows if row.is_fix]
    others = [row for row in found.rows if not row.is_fix]
    two = replace(found, rows=(*fixes[:2], *others))
    assert "better than chance is not shown" in " ".join(evaluation_report.notes(two))
    assert evaluation_report.as_data(two)["roc_auc"] == 1
    [interval] = [row[3] for row in evaluation_report.tables(two)[0].rows if row[0] == "ROC AUC"]
    assert interval == "0.158 to 1.000 (95 %, Clopper-Pearson 1934)"
    many = replace(found, rows=(*fixes[:6], *others))
    assert "chance" not in " ".join(evaluation_report.notes(many))


def test_rows_that_do_not_fit_in_the_context_are_left_out_and_counted(copy: sqlite3.Connection, filled: Path) -> None:
    found = run(copy, filled, Judge(overflow="free"))
    assert found.n_overflow > 0
    assert len(found.rows) + found.n_overflow == len(found.sample.fixes) + len(found.sample.others)
    assert f"{found.n_overflow} rows do not fit" in " ".join(evaluation_report.notes(found))
    with pytest.raises(TrustmineError, match="do not fit in the context"):
        run(copy, filled, Judge(turned=True, overflow="Commit message"))


def test_a_list_without_rows_to_compare_is_one_clear_error(copy: sqlite3.Connection, tmp_path: Path) -> None:
    file = tmp_path / "known.csv"
    file.write_text("commit\n" + "f" * 40 + "\n", encoding="utf-8")
    with pytest.raises(TrustmineError, match="nothing to compare") as error:
        evaluate.choose(copy, file)
    assert "0 of 1 known fixes passed s0_2" in error.value.where


def test_pictures_and_figures_are_written(copy: sqlite3.Connection, filled: Path, tmp_path: Path) -> None:
    found = run(copy, filled, Judge())
    paths = evaluation_report.write(found, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["roc.png", "reliability.png", "evaluation.json"]
    for path in paths[:2]:
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert json.loads(paths[2].read_text(encoding="utf-8"))["model"] == "judge [bold]$x"
    few = replace(found, rows=tuple(row for row in found.rows if row.is_fitted))
    evaluation_report.write(few, tmp_path / "half")


def test_without_matplotlib_the_extra_is_named_before_a_model_is_asked(
    filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(pipeline, "Models", None)  # whoever opens a model fails
    args = ["evaluate", "--known", str(filled / "known.csv"), "--db", str(filled / "trustmine.db")]
    with pytest.raises(SystemExit) as end:
        cli.main([*args, "--out", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "trustmine[plots]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_tables_or_json(
    copy: sqlite3.Connection,
    db_path: Path,
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    monkeypatch.setattr(tools, "open_engine", lambda conn, settings: opened(conn, Judge()))
    args = ["evaluate", "--known", str(filled / "known.csv"), "--db", str(db_path), "--others", "10", "--fit"]
    with pytest.raises(SystemExit) as end:
        cli.main([*args, *(["--json"] if as_json else [])])
    assert end.value.code == 0
    said = capsys.readouterr()
    if as_json:
        assert json.loads(said.out)["n_others"] == 10
    else:
        assert "judge [bold]$x" in said.out
        assert "ROC AUC" in said.out
        assert "min_p_fix" in said.out
        assert "Other commits may hide fixes" in said.err
    assert "advance --stage s0_3 --stale" in said.err
    assert copy.execute("SELECT method FROM calibrations").fetchall() == [("known",)]
