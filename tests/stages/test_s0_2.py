"""s0_2: the limits, their order and what is stored."""

from dataclasses import replace
from typing import TypeVar, cast

import pytest

from trustmine import tokens
from trustmine.config import Settings, load
from trustmine.keywords import KeywordMatcher
from trustmine.prompts import Prompts
from trustmine.records import (
    Advance,
    Commit,
    CommitSize,
    Diff,
    DiffFile,
    Fact,
    Identifier,
    Label,
    Outcome,
    Priority,
    Reject,
)
from trustmine.stages import base, s0_2_filter

F = TypeVar("F", bound=Fact)
COMMIT = Commit(1, 1, "1" * 40, (), 0, 0, False, "Fix <|endoftext|> leak", "s0_1")
PATCH = "diff --git a/a.c b/a.c\n--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n"
FILE = DiffFile(1, "modified", "a.c", "a.c", "1" * 40, "2" * 40, False, False, 1, 1, 1)


class Stored:
    """Facts in memory, as earlier stages stored them."""

    def __init__(self, *facts: Fact) -> None:
        self.facts = facts

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        return tuple(found for found in self.facts if isinstance(found, fact))

    def one(self, fact: type[F], commit: Commit) -> F:
        (found,) = self.all(fact, commit)
        return found

    def shared(self, fact: type[F], *key: str) -> F:
        raise LookupError(key)

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        return None

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        return ()


def run(
    patch: str | None, *files: DiffFile | Identifier, settings: Settings | None = None, n_chars: int | None = None
) -> Outcome:
    diff = Diff(patch, "utf-8", len(patch or "") if n_chars is None else n_chars)
    unused = cast(base.Repos, None), cast(Prompts, None), cast(KeywordMatcher, None)
    ctx = base.Context(settings or Settings(), Stored(diff, *files), *unused)
    return s0_2_filter.run(COMMIT, ctx)


def test_small_patch_of_one_c_file_passes_with_its_size_and_priority() -> None:
    size = CommitSize(tokens.count(f"{COMMIT.message}\n{PATCH}"))
    assert run(PATCH, FILE) == Advance((size, Priority(1.5, 0.0, 1.0, 0.0, 0.5, 0.0, ("fix*",))))


def test_identifiers_of_the_message_and_lists_of_words_count_for_the_priority() -> None:
    (_, named) = advanced(run(PATCH, FILE, Identifier("CVE", "CVE-2020-1234")))
    assert (named.identifiers, named.priority) == (6.0, 7.5)
    (_, other) = advanced(run(PATCH, FILE, settings=Settings(weak_words=(), strong_words=("leak*",))))
    assert (other.vocabulary, other.found) == (4.0, ("leak*",))


def advanced(outcome: Outcome) -> tuple[Fact, Priority]:
    assert isinstance(outcome, Advance)
    size, priority = outcome.facts
    assert isinstance(priority, Priority)
    return size, priority


def test_token_limit_is_the_first_number_rejected() -> None:
    number = tokens.count(f"{COMMIT.message}\n{PATCH}")
    assert run(PATCH, FILE, settings=Settings(max_commit_tokens=number)) == Reject("too_many_tokens")
    assert isinstance(run(PATCH, FILE, settings=Settings(max_commit_tokens=number + 1)), Advance)


def test_character_limit_is_the_first_number_rejected() -> None:
    assert run(PATCH, FILE, settings=Settings(max_diff_chars=len(PATCH))) == Reject("diff_too_large")
    assert isinstance(run(PATCH, FILE, settings=Settings(max_diff_chars=len(PATCH) + 1)), Advance)
    assert run(None, FILE, n_chars=1_000_000) == Reject("diff_too_large")


def test_first_reason_in_order_counts() -> None:
    other = replace(FILE, new_path="a.py")
    large = PATCH * 1_000
    assert run(large, other, FILE, settings=Settings(max_diff_chars=9)) == Reject("diff_too_large")
    assert run(large, other, FILE) == Reject("too_many_tokens")
    size = CommitSize(tokens.count(f"{COMMIT.message}\n{PATCH}"))
    assert run(PATCH, other, FILE) == Reject("not_single_file", (size,))
    assert run(PATCH, other) == Reject("not_c", (size,))


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        *((path, True) for path in ("a.c", "d/a.cc", "a.b.cpp", "a.h", "ä b.c")),
        *((path, False) for path in ("a.C", "a.H", "a.cxx", "a.hpp", "c", "a.c/Makefile", "a.c.orig", "a.cs")),
    ],
)
def test_extension_is_compared_as_written(path: str, passes: bool) -> None:
    assert isinstance(run(PATCH, replace(FILE, new_path=path)), Advance) == passes


def test_renamed_file_counts_by_its_new_path() -> None:
    assert isinstance(run(PATCH, replace(FILE, change="renamed", old_path="a.txt")), Advance)
    outcome = run(PATCH, replace(FILE, change="renamed", new_path="a.txt"))
    assert isinstance(outcome, Reject)
    assert outcome.reason == "not_c"


def test_extensions_are_a_setting() -> None:
    settings = Settings(extensions=(".hpp",))
    assert isinstance(run(PATCH, replace(FILE, new_path="a.hpp"), settings=settings), Advance)
    assert isinstance(run(PATCH, FILE, settings=settings), Reject)


WIDE = load(flags={"profile": "wide"}, env={}).settings


def test_in_the_wide_profile_limits_and_the_single_file_rule_count_source_alone() -> None:
    test, news = replace(FILE, file_no=2, new_path="tests/a.c"), replace(FILE, file_no=3, new_path="NEWS")
    other = PATCH.replace("a.c", "x").replace("int", "int " * 2_000)
    number = tokens.count(f"{COMMIT.message}\n{PATCH}")
    size, promising = advanced(run(PATCH + other + other, FILE, test, news, settings=WIDE))
    assert size == CommitSize(number)
    assert promising == advanced(run(PATCH, FILE))[1], "what does not count says nothing"
    assert run(PATCH + other + other, FILE, test, news) == Reject("too_many_tokens")
    limited = replace(WIDE, max_commit_tokens=number)
    assert run(PATCH + other + other, FILE, test, news, settings=limited) == Reject("too_many_tokens")


def test_in_the_wide_profile_a_second_source_file_counts_and_a_header_goes_beside() -> None:
    second = replace(FILE, file_no=2, new_path="b.c")
    header = replace(FILE, file_no=2, new_path="a.h")
    assert isinstance(run(PATCH + PATCH, FILE, header, settings=WIDE), Advance)
    for files, reason in (((FILE, second), "not_single_file"), ((replace(FILE, new_path="test/a.c"),), "not_c")):
        outcome = run(PATCH * len(files), *files, settings=WIDE)
        assert isinstance(outcome, Reject)
        assert outcome.reason == reason
