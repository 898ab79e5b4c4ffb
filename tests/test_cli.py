"""The commands as a user meets them: exit codes, errors in three parts, JSON, help with an example."""

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import without_override
from web_helpers import SAMPLES, make_db

from trustmine import cli, config
from trustmine.db import claims, identities
from trustmine.db.connect import connect, schema_version
from trustmine.demo import write_demo

Run = Callable[..., "tuple[int, str, str]"]
COMMANDS = [command.__name__ for command in cli.COMMANDS]
README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in tmp_path; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def go(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(args))
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return go


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "repo"
    write_demo(path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert re.search(
        rf"Example: .*trustmine {command}|Example: TRUSTMINE_\w+=\w+ trustmine {command}", " ".join(out.split())
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"trustmine {command}" in README.read_text(encoding="utf-8")


def test_the_readme_says_where_the_command_is_before_it_is_used() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.index("\n. .venv/bin/activate") < text.index("\ntrustmine run ")


def test_every_option_in_the_readme_exists(run: Run) -> None:
    for command, rest in re.findall(r"trustmine (\w+)([^`\n#]*)", README.read_text(encoding="utf-8")):
        if command not in COMMANDS:
            continue
        help_text = run(command, "--help")[1]
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in help_text, f"trustmine {command} {option}"


def test_a_repository_goes_from_ingest_to_the_funnel(run: Run, demo: Path) -> None:
    assert run("ingest", str(demo), "--name", "demo")[0] == 0
    assert run("advance", "--stage", "s0_1")[0] == 0
    assert run("advance", "--stage", "s0_2", "--limit", "10")[0] == 0
    code, out, _ = run("status", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["commits"], found["repos"][0]["name"]) == (76, "demo")
    first, second = found["stages"]["s0_1"], found["stages"]["s0_2"]
    assert set(first) == {"pending", "claimed", "passed", "failed", "rejected"}
    assert first["passed"] + sum(first["rejected"].values()) == 76
    assert second["passed"] + sum(second["rejected"].values()) == 10
    assert second["pending"] == first["passed"] - 10
    code, out, _ = run("status")
    assert code == 0
    assert "no_keyword" in out


def test_stale_rows_beyond_the_limit_keep_their_facts(run: Run, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1")
    run("advance", "--stage", "s0_2")
    conn = connect(Path("trustmine.db"), read_only=True)
    facts = "SELECT count(*) FROM steps WHERE stage = 's0_2'"
    (n,) = conn.execute(facts).fetchone()
    best = conn.execute("SELECT id FROM commits ORDER BY priority DESC, id LIMIT 1").fetchone()
    monkeypatch.setenv("TRUSTMINE_MAX_COMMIT_TOKENS", "999")
    code, _, said = run("advance", "--stage", "s0_2", "--stale", "--limit", "3")
    assert code == 0
    assert "s0_2: 3 stale rows sent back" in said
    assert conn.execute(facts).fetchone() == (n,), "three were redone, the others are as they were"
    assert json.loads(run("status", "--json")[1])["stale"]["s0_2"] == n - 3
    again = conn.execute("SELECT commit_id FROM steps WHERE recipe_id = (SELECT max(id) FROM recipes)").fetchall()
    assert len(again) == 3
    assert best in again
    conn.close()


def test_the_limit_counts_rows_of_all_stale_stages_together(
    run: Run, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1", "--end", "11")
    monkeypatch.setenv("TRUSTMINE_MATCH_MODE", "word")
    run("advance", "--stage", "s0_1")
    run("advance", "--stage", "s0_2")
    monkeypatch.setenv("TRUSTMINE_MAX_COMMIT_TOKENS", "5")  # no row gets as far as the model
    counts = json.loads(run("status", "--json")[1])["stale"]
    assert counts["s0_1"] == 10
    assert counts["s0_2"] > 5
    code, _, said = run("advance", "--stale", "--limit", "12")
    assert code == 0
    assert re.findall(r"(\S+): (\d+) stale rows sent back", said) == [("s0_1", "10"), ("s0_2", "2")]
    counts = json.loads(run("status", "--json")[1])
    assert counts["stale"]["s0_1"] == 0
    assert counts["stages"]["s0_2"]["pending"] == 0, "what was sent back is done again, through all stages"


def test_rows_that_are_merely_pending_are_not_stale_and_left_alone(
    run: Run, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1", "--limit", "20")
    before = json.loads(run("status", "--json")[1])["stages"]
    code, _, said = run("advance", "--stale")
    assert (code, said) == (0, "Nothing is stale\n")
    assert json.loads(run("status", "--json")[1])["stages"] == before
    monkeypatch.setenv("TRUSTMINE_MATCH_MODE", "word")
    code, _, said = run("advance", "--stale", "--stage", "s0_1")
    assert code == 0
    assert "s0_1: 20 stale rows sent back" in said
    after = json.loads(run("status", "--json")[1])["stages"]
    assert after["s0_1"]["pending"] == before["s0_1"]["pending"] == 56


def test_status_of_one_repository_has_no_rate_while_others_wait(run: Run, demo: Path, git: Callable[..., str]) -> None:
    run("ingest", str(demo), "--name", "owner/demo")
    conn = connect(Path("trustmine.db"))
    claims.enter(conn, identities.worker_name(), "s0_1")
    assert json.loads(run("status", "--repo", "demo", "--json")[1])["running"].keys() == {"s0_1"}
    git("commit", "-q", "--allow-empty", "-m", "fix overflow")
    run("ingest", "repo", "--name", "owner/other")
    assert json.loads(run("status", "--repo", "demo", "--json")[1])["running"] == {}
    assert json.loads(run("status", "--json")[1])["running"].keys() == {"s0_1"}
    conn.close()


def test_start_and_end_are_a_slice_of_row_ids(run: Run, demo: Path) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1", "--start", "11", "--end", "31")
    conn = connect(Path("trustmine.db"), read_only=True)
    ids = [row[0] for row in conn.execute("SELECT commit_id FROM steps ORDER BY 1")]
    conn.close()
    assert ids == list(range(11, 31))


def test_the_order_of_rows_can_be_chosen(run: Run, demo: Path) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1", "--limit", "20")
    run("advance", "--stage", "s0_1", "--limit", "10", "--order", "newest")
    conn = connect(Path("trustmine.db"), read_only=True)
    ids = [row[0] for row in conn.execute("SELECT commit_id FROM steps ORDER BY 1")]
    conn.close()
    assert ids == [*range(1, 21), *range(67, 77)]
    assert run("run", "--order", "best")[0] == 2
    assert "--order" in run("run", "--help")[1]


def test_show_tells_how_promising_a_commit_is_and_why(run: Run, demo: Path) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1")
    run("advance", "--stage", "s0_2")
    conn = connect(Path("trustmine.db"), read_only=True)
    sha, found = conn.execute("SELECT sha, found FROM most_promising LIMIT 1").fetchone()
    conn.close()
    assert "buffer overflow*" in found or "CVE" in found
    assert re.search(r"priority +\d+(\.5)? = identifiers \d", run("show", sha)[1])
    [shown] = json.loads(run("show", sha, "--json")[1])
    [stored] = shown["priorities"]
    assert (
        shown["priority"]
        == stored["priority"]
        == sum(stored[part] for part in ("identifiers", "vocabulary", "shape", "size", "place"))
    )


def test_show_tells_all_and_escapes_what_strangers_wrote(run: Run, demo: Path) -> None:
    run("ingest", str(demo))
    run("advance", "--stage", "s0_1")
    conn = connect(Path("trustmine.db"), read_only=True)
    sha = conn.execute(
        "SELECT sha FROM commits JOIN messages ON commit_id = id WHERE message LIKE '%' || char(27) || '%'"
    )
    hostile = sha.fetchone()[0]
    conn.close()
    code, out, _ = run("show", hostile[:10])
    assert code == 0
    assert hostile in out
    assert "\x1b" not in out
    assert "\\x1b" in out
    found = json.loads(run("show", hostile, "--json")[1])
    assert found[0]["sha"] == hostile
    assert "\x1b" in found[0]["message"]
    assert found[0]["keyword_matches"]


def test_label_and_audit(run: Run, demo: Path, tmp_path: Path) -> None:
    run("demo", str(tmp_path / "again"), "--known-fixes", "known.csv")
    run("ingest", str(demo))
    code, _, err = run("label", "known.csv", "--set", "yes")
    assert code == 0
    assert "29 labels on 29 commits" in err
    code, out, _ = run("audit", "known.csv", "--json")
    found = json.loads(out)
    assert (found["commits"], found["stages"]["s0_1"]["pending"]) == (29, 29)


def test_label_and_audit_of_one_repository(run: Run, demo: Path, git: Callable[..., str], tmp_path: Path) -> None:
    run("demo", str(tmp_path / "again"), "--known-fixes", "known.csv")
    run("ingest", str(demo), "--name", "owner/demo")
    git("commit", "-q", "--allow-empty", "-m", "fix overflow")
    run("ingest", str(tmp_path / "repo"), "--name", "owner/other")
    code, _, err = run("label", "known.csv", "--repo", "other")
    assert code == 0 and "0 labels on 0 commits; 29 lines name commits that are not in other" in " ".join(err.split())
    assert "29 labels on 29 commits" in run("label", "known.csv", "--repo", "owner/demo")[2]
    assert json.loads(run("audit", "known.csv", "--repo", "other", "--json")[1])["unknown"] == 29
    assert "29 of them not in other" in " ".join(run("audit", "known.csv", "--repo", "other")[1].split())
    assert json.loads(run("audit", "known.csv", "--repo", "demo", "--json")[1])["unknown"] == 0
    assert run("label", "--osv", str(demo), "--repo", "demo")[0] == 2
    assert "There is no repository 'nope'" in run("label", "known.csv", "--repo", "nope")[2]


def test_export_leakage_and_score_work_together(run: Run, tmp_path: Path) -> None:
    make_db(tmp_path / "trustmine.db", SAMPLES).close()
    code, _, err = run("export", "pairs", "--format", "detection", "--plots")
    assert code == 0 and "6 rows in pairs" in err and "bench: cwe-787 2" in err
    code, _, err = run("export", "curl", "--format", "detection", "--repo", "acme/curl")
    assert code == 0 and "4 rows in curl" in err
    code, out, _ = run("leakage", "pairs", "--json")
    assert code == 0 and json.loads(out)["counts"]["commit"] == 0
    train = (tmp_path / "pairs" / "train.jsonl").read_text()
    (tmp_path / "other.jsonl").write_text(train)
    code, out, err = run("leakage", "pairs", "--against", "other.jsonl")
    assert code == 1 and "commit" in out and "findings" in err and "\x1b" not in out

    code, _, err = run("export", "bench", "--format", "bench")
    assert code == 0 and "1 row in bench" in err
    gap = json.loads((tmp_path / "bench" / "bench.jsonl").read_text())
    (tmp_path / "answers.jsonl").write_text(json.dumps({"id": gap["id"], "answer": gap["fixed"], "confidence": 1}))
    code, out, _ = run("score", "bench/bench.jsonl", "answers.jsonl", "--png", "risk.png")
    assert code == 0 and (tmp_path / "risk.png").stat().st_size > 0
    assert re.search(r"aurc +0\.000", out) and re.search(r"CWE-787 +1 +0 +1\.000", out)
    code, out, _ = run("score", "bench/bench.jsonl", "answers.jsonl", "--json")
    assert code == 0 and json.loads(out)["total"]["right"] == 1


def test_settings_say_where_values_come_from(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trustmine.toml").write_text("seed = 3\n")
    monkeypatch.setenv("TRUSTMINE_LEASE_S", "60")
    found = json.loads(run("settings", "--json")[1])
    assert found["seed"] == {"value": 3, "source": "file trustmine.toml"}
    assert found["lease_s"] == {"value": 60.0, "source": "environment TRUSTMINE_LEASE_S"}
    assert found["keywords"]["source"] == "default"
    assert run("settings")[0] == 0


def test_a_profile_is_a_flag_of_the_commands_that_depend_on_it(run: Run, demo: Path) -> None:
    found = json.loads(run("settings", "--profile", "wide", "--json")[1])
    assert found["profile"] == {"value": "wide", "source": "flag"}
    assert found["fix_scope"] == {"value": "function", "source": "profile wide"}
    run("ingest", str(demo))
    for stage in ("s0_1", "s0_2"):
        assert run("advance", "--stage", stage, "--profile", "wide")[0] == 0
    assert not any(json.loads(run("status", "--profile", "wide", "--json")[1])["stale"].values())
    assert json.loads(run("status", "--json")[1])["stale"]["s0_1"] > 0


def test_the_doctor_finds_everything_in_order(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    assert code == 0, out
    assert {"SQLite", "git", "schema and prompts", "tokenizer, offline", "model", "GPU offload", "disk"} <= set(checks)
    assert "SmolLM2" in checks["model"]["found"].replace("Smollm2", "SmolLM2")
    assert "2 tokens" in checks["tokenizer, offline"]["found"]


def _make_newer(path: Path) -> None:
    conn = connect(path, create=True)
    conn.execute(f"PRAGMA user_version = {schema_version() + 1}")
    conn.close()


def _make_other(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE songs (title TEXT)")
    conn.close()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["ingest", "."], "not a git repository"),
        (["ingest", "nowhere"], "no such folder"),
        (["ingest", "empty"], "no commits"),
        (["ingest", "file:///nowhere/at/all.git"], "Cannot clone"),
        (["ingest", "full", "--ref", "no-such-branch"], "no-such-branch"),
        (["demo", "demo", "--known-fixes", "no/such/known.csv"], "Cannot write the list of known fixes"),
        (["advance", "--stage", "s9"], "There is no stage 's9'"),
        (["status", "--db", "newer.db"], "newer trustmine"),
        (["ingest", "full", "--db", "other.db"], "another program"),
        (["ingest", "full", "--db", "text.db"], "not an SQLite database"),
        (["status", "--db", "missing.db"], "There is no database"),
        (["status", "--config", "typo.toml"], "Unknown setting"),
        (["status", "--config", "none.toml"], "Cannot read the settings"),
        (["reset", "--stage", "s0_1", "--repo", "nope"], "There is no repository 'nope'"),
        (["show", "ffffffff"], "No commit begins with"),
        (["show", "xyz"], "This is no SHA"),
        (["label", "none.csv"], "Cannot read the list"),
        (["export", "out"], "Nothing to export|no instructions|nothing to export"),
        (["export", "out", "--repo", "nope"], "There is no repository 'nope'"),
        (["leakage", "nowhere"], "nothing to check"),
        (["score", "none.jsonl", "text.db"], "Cannot read the file"),
        (["score", "text.db", "text.db"], "no JSON"),
        (["leakage", "empty", "--against", "full"], "no data files"),
        (["doctor", "--model", "text.db"], None),
        (["advance", "--stage", "s0_3", "--model", "none.gguf"], "Cannot read the model"),
        (["advance", "--stage", "s0_3", "--model", "text.db"], "not GGUF"),
        (["advance", "--stage", "s0_3", "--model", "cut.gguf"], "truncated or damaged"),
    ],
)
def test_bad_input_is_one_clear_error(
    run: Run, git: Callable[..., str], tmp_path: Path, args: list[str], complaint: str | None
) -> None:
    from trustmine import resources

    git("commit", "-q", "--allow-empty", "-m", "fix overflow")
    (tmp_path / "repo").rename(tmp_path / "full")
    subprocess.run(["git", "init", "-q", "empty"], cwd=tmp_path, check=True)
    _make_newer(tmp_path / "newer.db")
    _make_other(tmp_path / "other.db")
    (tmp_path / "text.db").write_text("hello\n" * 50)
    (tmp_path / "typo.toml").write_text("max_comit_tokens = 1\n")
    with resources.built_in_model().open("rb") as model:
        (tmp_path / "cut.gguf").write_bytes(model.read(1 << 20))
    run("ingest", "full")
    conn = connect(Path("trustmine.db"))
    conn.execute("UPDATE commits SET status = 's0_2'")  # so that a model is asked for
    conn.close()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.db")}
    code, _out, err = run(*args)
    assert code == 1, err
    assert "Traceback" not in err
    if complaint is not None:
        assert re.search(complaint, err), err
        assert 1 <= len(err.strip().splitlines()) <= 4, "what, where, what to do"
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.db")} == before, "databases are untouched"


@pytest.mark.parametrize("args", [["advance"], ["ingest"], ["status", "--nope"], ["nope"], ["advance", "--limit", "0"]])
def test_wrong_usage_exits_with_2(run: Run, args: list[str]) -> None:
    code, _, err = run(*args)
    assert code == 2
    assert "Usage:" in err


def test_run_takes_a_repository_to_ingest_or_one_that_is_there(run: Run) -> None:
    code, _, err = run("run", "nowhere", "--repo", "other")
    assert code == 2, "before anything is read"
    assert "Give REPO" in err and "or --repo" in err


def test_our_own_bug_leaves_a_log_and_exits_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(config, "load", broken)
    monkeypatch.setattr(sys, "argv", ["trustmine", "ingest", "https://me:secret@example.org/owner/name"])
    code, _, err = run("settings")
    assert code == 3
    log = Path(err.rsplit("Details: ", 1)[1].strip())
    assert "ZeroDivisionError: oops" in log.read_text()
    assert "Traceback" in log.read_text()
    assert "'https://example.org/owner/name'" in log.read_text() and "secret" not in log.read_text()
    log.unlink()


def test_ctrl_c_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupted)
    code, _, err = run("settings")
    assert code == 130
    assert "nothing is lost" in err


def _shell(*args: str, before: tuple[str, ...] = (), **how: Any) -> "subprocess.CompletedProcess[bytes]":
    """A command in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(README.parent), **how.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.run([*before, sys.executable, "-m", "trustmine.cli", *args], env=env, check=False, **streams)


@pytest.mark.parametrize(
    "args",
    [
        ["status"],
        ["status", "--json"],
        ["settings"],
        ["settings", "--json"],
        ["show", "HEAD"],
        ["show", "HEAD", "--json"],
        ["--help"],
        ["run", "--help"],
        ["--version"],
    ],
)
def test_a_reader_that_has_enough_is_no_error(run: Run, demo: Path, args: list[str]) -> None:
    run("ingest", str(demo))
    conn = connect(Path("trustmine.db"), read_only=True)
    sha = conn.execute("SELECT sha FROM commits LIMIT 1").fetchone()[0]
    conn.close()
    reader, stdout = os.pipe()
    os.close(reader)
    ended = _shell(*(sha if arg == "HEAD" else arg for arg in args), stdout=stdout)
    os.close(stdout)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_reader_of_talk_that_has_gone_changes_nothing(run: Run, demo: Path) -> None:
    reader, stderr = os.pipe()
    os.close(reader)
    done = [_shell(*args, stderr=stderr).returncode for args in (["ingest", str(demo)], ["show", "ffffffff"], ["nope"])]
    os.close(stderr)
    assert done == [0, 1, 2]
    assert json.loads(run("status", "--json")[1])["commits"] == 76


def test_any_other_broken_pipe_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(config, "load", broken)
    code, _, err = run("settings")
    assert code == 1
    assert "Another program" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", [["status"], ["status", "--json"], ["settings", "--json"], ["--help"]])
def test_results_that_cannot_be_written_are_one_clear_error(run: Run, args: list[str], unbuffered: str) -> None:
    connect(Path("trustmine.db"), create=True).close()
    with Path("/dev/full").open("w") as full:
        ended = _shell(*args, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
        assert _shell("nope", stderr=full).returncode == 2, "talk may be lost"
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [
        "Cannot write the results: No space left on device",
        "  stdout",
        "  Make room there",
    ]


def test_a_folder_that_may_not_be_entered_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    ended = _shell("status", "--db", "closed/x.db", before=without_override())
    assert (ended.returncode, ended.stderr.decode().splitlines()) == (
        1,
        ["Cannot go on: Permission denied", "  closed/x.db", "  Check the rights on it and on the folders above it"],
    )


def test_a_name_too_long_is_one_clear_error(run: Run) -> None:
    long = "x" * 300
    code, _, err = run("status", "--db", long)
    assert (code, err.splitlines()) == (1, ["Cannot go on: File name too long", f"  {long}", "  Give a shorter name"])


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux alone")
def test_names_that_are_not_utf8_are_refused(run: Run, demo: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    code, _, err = run("status", "--db", f"{odd}.db")
    assert code == 2
    assert r"'caf\udce9.db' is not UTF-8" in err
    (tmp_path / odd).mkdir()
    ended = _shell("ingest", str(demo), cwd=tmp_path / odd)
    assert ended.returncode == 2
    assert rf"{tmp_path}/caf\udce9/trustmine.db' is not UTF-8" in ended.stderr.decode()
    shutil.copytree(demo, tmp_path / odd / "repo")
    (tmp_path / "link").symlink_to(odd)
    code, _, err = run("ingest", "link/repo")
    assert code == 2
    assert r"caf\udce9/repo/.git' is not UTF-8" in err


def test_a_terminal_that_is_not_utf8_gets_escapes(run: Run, demo: Path) -> None:
    run("ingest", str(demo), "--name", "démo 漢 \U0001f600")
    commands = (["status"], ["status", "--json"], ["status", "--repo", "漢"])
    table, found, talk = (_shell(*args, env={"PYTHONIOENCODING": "ascii"}) for args in commands)
    assert (table.returncode, found.returncode, talk.returncode) == (0, 0, 1)
    assert rb"d\xe9mo \u6f22 \U0001f600" in table.stdout
    assert re.search(rb"^s0_2 .* - ", table.stdout, re.MULTILINE)
    assert json.loads(found.stdout)["repos"][0]["name"] == "démo 漢 \U0001f600"
    assert rb"\u6f22" in talk.stderr


@pytest.mark.parametrize("fails_at", ["mkstemp", "write"])
def test_a_bug_is_told_where_no_log_can_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oops")

    def full(**kind: str) -> tuple[int, str]:
        if fails_at == "mkstemp":
            raise OSError(errno.ENOSPC, "No space left on device")
        (tmp_path / "new.log").touch()
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "new.log")

    monkeypatch.setattr(config, "load", broken)
    monkeypatch.setattr(tempfile, "mkstemp", full)
    code, _, err = run("settings")
    assert code == 3
    assert "This is a bug in trustmine: ZeroDivisionError: oops" in err
    assert "Traceback" in err and "Python 3." in err
    assert not (tmp_path / "new.log").exists()


def test_a_vanished_repository_is_one_clear_error(run: Run, git: Callable[..., str], tmp_path: Path) -> None:
    git("commit", "-q", "--allow-empty", "-m", "fix overflow")
    run("ingest", "repo")
    (tmp_path / "repo").rename(tmp_path / "elsewhere")
    code, _, err = run("advance", "--stage", "s0_1")
    assert code == 1
    assert "cannot be read any more" in err
    assert json.loads(run("status", "--json")[1])["stages"]["s0_1"]["pending"] == 1


def test_a_moved_repository_is_read_from_its_new_place_as_the_error_says(
    run: Run, git: Callable[..., str], tmp_path: Path
) -> None:
    for i in range(20):
        git("commit", "-q", "--allow-empty", "-m", f"fix overflow {i}")
    run("ingest", "repo", "--name", "demo/demo")
    (tmp_path / "repo").rename(tmp_path / "moved")
    _, _, err = run("advance", "--stage", "s0_1", "--workers", "2")
    [hint] = re.findall(r"trustmine (ingest NEW_PLACE --name \S+);", err)
    code, _, err = run(*hint.replace("NEW_PLACE", "moved").split())
    assert code == 0
    assert f"demo/demo has moved from {tmp_path}/repo/.git to {tmp_path}/moved/.git\n" in err
    assert "demo/demo: 0 new commits, 20 in all" in err
    assert run("advance", "--stage", "s0_1", "--workers", "2")[0] == 0
    (tmp_path / "moved").rename(tmp_path / "again")
    code, _, err = run("run", "again", "--name", "demo/demo")
    assert code == 0
    assert f"has moved from {tmp_path}/moved/.git" in err
    status = json.loads(run("status", "--json")[1])
    assert (status["commits"], status["stages"]["s0_1"]["rejected"]) == (20, {"empty_diff": 20})


def test_a_clone_that_is_gone_is_cloned_again_as_the_error_says(
    run: Run, git: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("commit", "-q", "--allow-empty", "-m", "fix overflow")
    monkeypatch.setenv("TRUSTMINE_CACHE", str(tmp_path / "home"))
    run("ingest", f"file://{tmp_path}/repo", "--name", "demo")
    (tmp_path / "home").rename(tmp_path / "away")
    monkeypatch.setenv("TRUSTMINE_CACHE", str(tmp_path / "other"))
    [hint] = re.findall(r"trustmine (ingest \S+ --name demo);", run("advance", "--stage", "s0_1")[2])
    assert "demo: 0 new commits, 1 in all" in run(*hint.split())[2]
    assert run("advance", "--stage", "s0_1")[0] == 0


def test_help_and_status_do_not_load_a_model() -> None:
    script = "import sys, trustmine.cli; sys.exit('llama_cpp' in sys.modules or 'pygit2' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(README.parent)}
    subprocess.run([sys.executable, "-c", script], check=True, env=env)
