"""Stages done again: with the settings of the recipe and the recorded answers, each gives what is stored.

Nothing is written and no model is loaded: what a stage asks is answered from
llm_calls, where the prompt as filled in now must be the one that was sent.
Rows are left out, and counted, where that cannot be told: made by another
version, by other prompts, or from a repository that cannot be read here.
"""

import contextlib
import datetime
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from types import GeneratorType
from typing import Any, TypeVar, cast

from trustmine import calibrate, calibration, tools
from trustmine.config import Settings
from trustmine.db import claims
from trustmine.db.facts import FactReader, as_json
from trustmine.errors import RepositoryError
from trustmine.gitrepo import GitRepo, MissingObject
from trustmine.llm.base import ContextOverflow
from trustmine.llm.hashes import rendered_hash
from trustmine.records import (
    FACTS,
    Commit,
    CommitHeader,
    Completion,
    Fact,
    Label,
    Outcome,
    PreImage,
    Reject,
    Request,
    Verdict,
    is_of_its_stage,
)
from trustmine.stages import STAGES, aside, asks_model, prepare, unasked
from trustmine.stages.base import Asking, Context, Stage
from trustmine.verify.base import Finding, Look
from trustmine.verify.texts import git_blob_oid
from trustmine.worker import CONTEXT_OVERFLOW

F = TypeVar("F", bound=Fact)

BATCH = 500
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Settings)}
OTHER_RECIPE = "made by another version, other prompts or settings that are no more"
NO_REPOSITORY = "the repository, or an object of it, cannot be read here"


# ---------------------------------------------------------------------- ingest


def commits(look: Look) -> Iterator[Finding]:
    """Message, parents and times of each commit are those in git."""
    for repo_id, name in look.conn.execute("SELECT id, name FROM repos ORDER BY id").fetchall():
        n_commits = look.conn.execute("SELECT count(*) FROM commits WHERE repo_id = ?", (repo_id,)).fetchone()[0]
        tips = [row[0] for row in look.conn.execute("SELECT sha FROM refs WHERE repo_id = ?", (repo_id,))]
        n_seen = 0
        try:
            repo = tools.Repos(look.conn).get(repo_id)
            for header in repo.walk([tip for tip in tips if repo.has(tip)], []):
                stored = look.conn.execute(
                    """SELECT id, parents, author_time_s, commit_time_s, message, encoding
                       FROM commits LEFT JOIN messages ON commit_id = id WHERE repo_id = ? AND sha = ?""",
                    (repo_id, header.sha),
                ).fetchone()
                n_seen += stored is not None
                if stored is not None and stored[1:] != _as_stored(header):
                    yield _wrong(stored[0], name, stored[1:], header)
                look.draw(n_seen)
                if n_seen % BATCH == 0:
                    look.renew()
        except RepositoryError:
            pass
        if n_seen < n_commits:
            look.skip(
                NO_REPOSITORY if n_seen == 0 else "no longer reachable from what was ingested", n_commits - n_seen
            )


def _as_stored(header: CommitHeader) -> tuple[str, int, int, str, str]:
    return (" ".join(header.parents), header.author_time_s, header.commit_time_s, header.message, header.encoding)


def _wrong(commit_id: int, repo: str, stored: Sequence[object], header: CommitHeader) -> Finding:
    names = ("parents", "author_time_s", "commit_time_s", "message", "encoding")
    parents, author_time_s, commit_time_s, message, encoding = right = _as_stored(header)
    wrong = [name for name, a, b in zip(names, stored, right, strict=True) if a != b]
    mend = (
        ("UPDATE commits SET parents = ?, author_time_s = ?, commit_time_s = ? WHERE id = ?",
         (parents, author_time_s, commit_time_s, commit_id)),
        ("INSERT INTO messages VALUES (?, ?, ?) ON CONFLICT (commit_id)"
         " DO UPDATE SET message = excluded.message, encoding = excluded.encoding", (commit_id, message, encoding)),
    )  # fmt: skip
    return Finding(commit_id, f"{', '.join(wrong)} not as in git ({repo})", back="s0_1", mend=mend)


# ---------------------------------------------------------------- stages done again


class _AsThen(FactReader):
    """Facts as s0_3 saw them: labels from outside may have come later, but for those of the list that it followed.

    Later stages may have seen either: what they stored is right if one of both gives it.
    """

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        sources = {verdict.source for verdict in self.all(Verdict, commit)}
        return tuple(one for one in super().labels(commit) if one.source in sources)


class _Repos:
    """Repositories opened once for all recipes."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._repos = tools.Repos(conn)
        self._gone: dict[int, RepositoryError] = {}

    def get(self, repo_id: int) -> GitRepo:
        if repo_id in self._gone:
            raise self._gone[repo_id]
        try:
            return self._repos.get(repo_id)
        except RepositoryError as error:
            self._gone[repo_id] = error
            raise


class _Stored:
    """In the place of repositories: blobs that are stored as pre-images, from git where they are not."""

    def __init__(self, repos: _Repos, facts: FactReader) -> None:
        self._repos, self._facts = repos, facts

    def get(self, repo_id: int) -> GitRepo:
        return cast(GitRepo, _StoredBlobs(self._repos, self._facts, repo_id))


@dataclass(frozen=True, slots=True)
class _StoredBlobs:
    repos: _Repos
    facts: FactReader
    repo_id: int

    def blob(self, oid: str) -> bytes:
        stored = self.facts.find_shared(PreImage, oid)
        return self.repos.get(self.repo_id).blob(oid) if stored is None else zlib.decompress(stored.content)

    def blob_oid(self, data: bytes) -> str:
        return git_blob_oid(data)

    def top_files(self, sha: str) -> dict[bytes, str]:
        return self.repos.get(self.repo_id).top_files(sha)

    def find_file(self, sha: str, path: bytes) -> str | None:
        return self.repos.get(self.repo_id).find_file(sha, path)


class Again:
    """A check: all rows that a stage has decided, decided again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._tables = [fact for fact in FACTS if fact.STAGE == stage.NAME and not fact.SHARED]

    def __call__(self, look: Look) -> Iterator[Finding]:
        stage, last, n_done = self._stage, 0, 0
        contexts: dict[int, Context | None] = {}
        repos, as_then = _Repos(look.conn), _AsThen(look.conn)
        while rows := look.conn.execute(
            """SELECT commit_id, recipe_id, outcome, reject_stage, reject_reason
               FROM steps JOIN commits ON id = commit_id
               WHERE stage = ? AND commit_id > ? ORDER BY commit_id LIMIT ?""",
            (stage.NAME, last, BATCH),
        ).fetchall():
            last = rows[-1][0]
            seen = {commit.id: commit for commit in claims.read(look.conn, [row[0] for row in rows])}
            for recipe_id in dict.fromkeys(row[1] for row in rows):
                if recipe_id not in contexts:
                    contexts[recipe_id] = _context(look, stage, recipe_id, repos)
                ctx = contexts[recipe_id]
                mine = [row for row in rows if row[1] == recipe_id and row[0] not in look.found and row[0] in seen]
                if ctx is None:
                    look.skip(OTHER_RECIPE, len(mine))
                    continue
                is_aside = {row[0]: row[2] == "rejected" and row[3] != stage.NAME and (row[3], row[4]) in aside(stage)
                            for row in mine}  # fmt: skip
                commits = [replace(seen[row[0]], status=stage.AFTER, is_aside=is_aside[row[0]]) for row in mine]
                with contextlib.suppress(RepositoryError):  # each row says so
                    prepare(stage, commits, ctx)
                for commit, row in zip(commits, mine, strict=True):
                    stored = row[4] if row[3] == stage.NAME else None
                    different = list(self._compare(look, ctx, commit, stored))
                    if different and list(self._compare(look, replace(ctx, facts=as_then), commit, stored)):
                        yield from different
                    n_done += 1
                    look.draw(n_done)
            look.renew()

    def _compare(self, look: Look, ctx: Context, commit: Commit, reason: str | None) -> Iterator[Finding]:
        if (
            commit.is_aside
            and look.conn.execute(
                "SELECT 1 FROM failures WHERE commit_id = ? AND stage = ?", (commit.id, self._stage.NAME)
            ).fetchone()
        ):
            return  # given up: its step only ends the attempts
        try:
            outcome = _run(look, self._stage, commit, ctx)
        except (RepositoryError, MissingObject):
            look.skip(NO_REPOSITORY)
            return
        except Exception as error:
            yield self._finding(commit, f"{type(error).__name__}: {error}"[:300])
            return
        is_now = outcome.reason if isinstance(outcome, Reject) else None
        if is_now != reason:
            what = f"{self._stage.NAME} stored {reason or 'passed'}, again gives {is_now or 'passed'}"
            yield self._finding(commit, what)
            return
        now = sorted(_plain(fact) for fact in outcome.facts if not fact.SHARED)
        then = sorted(
            _plain(fact) for table in self._tables for fact in look.facts.all(table, commit) if is_of_its_stage(fact)
        )
        if now != then:
            tables = sorted({line.split(" ", 1)[0] for line in set(now) ^ set(then)})
            yield self._finding(commit, f"{self._stage.NAME} again gives other {', '.join(tables)}")

    def _finding(self, commit: Commit, what: str) -> Finding:
        # Facts or answers are damaged, and nothing tells which: the model is asked again.
        drop = "DELETE FROM llm_calls WHERE commit_id = ? AND stage = ?"
        return Finding(commit.id, what, back=self._stage.NAME, mend=((drop, (commit.id, self._stage.NAME)),))


def _run(look: Look, stage: Stage, commit: Commit, ctx: Context) -> Outcome:
    """What the stage says, asked questions answered from the record."""
    answer = stage.run(commit, ctx)
    if not isinstance(answer, GeneratorType):
        return cast(Outcome, answer)
    asking = cast(Asking, answer)
    try:
        request = next(asking)
        while True:
            completion = _recorded(look, stage, commit, request)
            # What was never answered did not fit in the model's context.
            request = asking.throw(ContextOverflow(0, 0, 0)) if completion is None else asking.send(completion)
    except StopIteration as end:
        return cast(Outcome, end.value)
    except ContextOverflow:
        return Reject(CONTEXT_OVERFLOW)


def _recorded(look: Look, stage: Stage, commit: Commit, request: Request) -> Completion | None:
    row = look.conn.execute(
        """SELECT completion, finish_reason, label_logprobs, n_prompt, n_cached, n_completion, duration_ms,
                  request_hash, rendered_hash
           FROM llm_calls AS l JOIN steps AS t ON t.commit_id = l.commit_id AND t.stage = l.stage
           JOIN recipes AS r ON r.id = t.recipe_id
           WHERE l.commit_id = ? AND l.stage = ? AND l.model_id IS r.model_id AND l.rendered_hash = ?
                 AND l.prompt_hash = ? AND json_extract(sampling, '$.max_tokens') = ?
                 AND json_extract(sampling, '$.seed') = ? AND json_extract(sampling, '$.temperature') = ?
           ORDER BY json_extract(sampling, '$.n_ctx') = json_extract(r.content, '$.sampling.n_ctx') DESC,
                    l.created_at_s DESC LIMIT 1""",
        (commit.id, stage.NAME, rendered_hash(request), request.prompt_hash, request.max_tokens, request.seed,
         request.temperature),
    ).fetchone()  # fmt: skip
    if row is None:
        return None
    logprobs = None if row[2] is None else json.loads(row[2])
    return Completion(row[0], row[1], logprobs, *row[3:])


def _plain(fact: Fact) -> str:
    """Table and values, so that facts that mean the same are the same: libm may differ in a last digit."""
    values = {f.name: getattr(fact, f.name) for f in fields(fact)}
    plain = {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in values.items()}
    return f"{fact.TABLE} {as_json(plain)}"


def _context(look: Look, stage: Stage, recipe_id: int, repos: _Repos) -> Context | None:
    """The tools as the recipe had them; None if that cannot be had any more."""
    (text,) = look.conn.execute("SELECT content FROM recipes WHERE id = ?", (recipe_id,)).fetchone()
    content = json.loads(text)
    prompts = tools.prompts(look.settings)
    values = {**content.get("settings", {}), **content.get("sampling", {})}
    if content.get("version") != stage.VERSION or not values.keys() <= _DEFAULTS.keys():
        return None
    settings = _settings({**{name: _DEFAULTS[name] for name, _ in unasked(stage)}, **values}, look.settings)
    named = stage.PROMPTS if asks_model(stage, settings) else ()
    if set(content["settings"]) != set(tools.recipe_settings(stage, settings)) or content.get("prompts") != {
        name: prompts.hash(name) for name in named
    }:
        return None
    ctx = tools.context(look.conn, settings)
    facts = _AsThen(look.conn) if stage.NAME == calibrate.STAGE else look.facts
    numbers = None
    if content.get("calibration") is not None:
        row = look.conn.execute(
            """SELECT id, hash, method, "offset", scale, undecided_cutoff, n_rows FROM calibrations WHERE hash = ?""",
            (content["calibration"],),
        ).fetchone()
        if row is None:
            return None
        numbers = calibration.Calibration(*row)
    return replace(
        ctx,
        facts=facts,
        repos=_Stored(repos, facts) if stage.NAME == "s1_1" else repos,
        calibration=numbers,
    )


def _settings(values: dict[str, Any], present: Settings) -> Settings:
    """Settings with these values, as recipes hold them; what results do not depend on is as it is now."""
    given: dict[str, Any] = {
        name: tuple(value)
        if isinstance(value, list)
        else datetime.date.fromisoformat(value)
        if isinstance(_DEFAULTS[name], datetime.date)
        else value
        for name, value in values.items()
    }
    return replace(present, **given)


AGAIN = {name: Again(stage) for name, stage in STAGES.items()}
