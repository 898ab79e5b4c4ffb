"""The stages without a model over the demo repository: every reason a repository can cause occurs."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import pytest
from test_demo import EXPECTED_REJECTS, PASSING_FIXES

from trustmine import demo
from trustmine.config import Settings
from trustmine.cparse.functions import function_at, functions, outline
from trustmine.demo.script import read_script
from trustmine.gitrepo import GitRepo
from trustmine.keywords import KeywordMatcher
from trustmine.records import Advance, Commit, Fact, Label
from trustmine.stages import s0_1_match, s0_2_filter
from trustmine.stages.base import Context

F = TypeVar("F", bound=Fact)
STAGES: tuple[ModuleType, ...] = (s0_1_match, s0_2_filter)


class KeptFacts:
    """What the stages before returned, by commit."""

    def __init__(self) -> None:
        self.kept: dict[int, list[Fact]] = defaultdict(list)

    def one(self, fact: type[F], commit: Commit) -> F:
        (found,) = self.all(fact, commit)
        return found

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        return tuple(kept for kept in self.kept[commit.id] if isinstance(kept, fact))

    def shared(self, fact: type[F], *key: str) -> F:
        raise LookupError(f"no stage here shares facts: {fact.__name__} {key}")

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        return None

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        return ()


class OneRepo:
    def __init__(self, repo: GitRepo) -> None:
        self.repo = repo

    def get(self, repo_id: int) -> GitRepo:
        return self.repo


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """SHA -> reason, 'passed' if there is none."""
    path: Path = tmp_path_factory.mktemp("demo") / "parcel"
    head = demo.write_demo(path)
    repo = GitRepo.open(path)
    settings, facts = Settings(), KeptFacts()
    matcher = KeywordMatcher(settings.keywords, settings.match_mode)
    ctx = Context(settings, facts, OneRepo(repo), cast(Any, None), matcher)
    reasons = {}
    for number, header in enumerate(repo.walk([head], []), 1):
        commit = Commit(
            id=number,
            repo_id=1,
            sha=header.sha,
            parents=header.parents,
            author_time_s=header.author_time_s,
            commit_time_s=header.commit_time_s,
            is_boundary=header.is_boundary,
            message=header.message,
            status="ingested",
        )
        reasons[commit.sha] = "passed"
        for stage in STAGES:
            outcome = stage.run(commit, ctx)
            facts.kept[commit.id].extend(outcome.facts)
            if not isinstance(outcome, Advance):
                reasons[commit.sha] = outcome.reason
                break
    yield reasons
    repo.close()


def test_each_reason_rejects_the_commits_planted_for_it(outcomes: dict[str, str]) -> None:
    shas = demo.demo_commits()
    for stage in STAGES:
        for reason in set(stage.REASONS) - {"shallow_boundary"}:  # a whole clone has none
            wrong = {slug: outcomes[shas[slug]] for slug in EXPECTED_REJECTS[reason] if outcomes[shas[slug]] != reason}
            assert not wrong, reason


def test_the_fixes_meant_for_the_models_pass(outcomes: dict[str, str]) -> None:
    shas = demo.demo_commits()
    assert {slug: outcomes[shas[slug]] for slug in PASSING_FIXES} == dict.fromkeys(PASSING_FIXES, "passed")


def test_each_of_these_fixes_lies_in_one_function_before_and_after() -> None:
    for slug in PASSING_FIXES | {"get-link", "open-null", "dump-verb"}:
        for number, (path, content, changed) in enumerate(_sides(slug)):
            around = function_at(functions(content, path), *changed)
            assert around is not None, (slug, number)
            assert not around.has_error, (slug, number)


def test_a_function_closed_by_a_macro_is_in_doubt_and_a_table_is_outside_of_functions() -> None:
    for slug, in_doubt in (("kick-null", True), ("stat-table", False)):
        for path, content, (first, last) in _sides(slug):
            seen = outline(content, path)
            assert function_at(seen.functions, first, last) is None
            assert any(d.first_line <= first and last <= d.last_line for d in seen.doubtful) == in_doubt


def _sides(slug: str) -> Iterator[tuple[str, bytes, tuple[int, int]]]:
    """Path, content and changed lines (first, last) of the one C file that a commit changes, before and after."""
    entries = {entry.slug: entry for entry in read_script()}
    new = entries[slug].tree
    old = entries[entries[slug].parents[0]].tree
    (new_path,) = (path for path in new if new[path] != old.get(path))
    (old_path,) = (path for path in old if old[path] != new.get(path))
    lines = [side.split(b"\n") for side in (old[old_path], new[new_path])]
    n_equal = next(n for n, (a, b) in enumerate(zip(*lines, strict=False)) if a != b or n + 1 == min(map(len, lines)))
    n_tail = next(n for n, (a, b) in enumerate(zip(*(side[::-1] for side in lines), strict=False)) if a != b)
    for path, content, side in zip((old_path, new_path), (old[old_path], new[new_path]), lines, strict=True):
        yield path, content, (n_equal + 1, max(n_equal + 1, len(side) - n_tail))
