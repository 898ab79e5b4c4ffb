"""A tiny context for stages: facts in memory, a real repository."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trustmine.config import Settings
from trustmine.gitrepo import GitRepo
from trustmine.records import Commit, Fact, Label

WHO = ["-c", "user.name=A", "-c", "user.email=a@example.org"]


@dataclass
class MemoryFacts:
    """Facts of one commit."""

    stored: Sequence[Fact] = ()
    outside: Sequence[Label] = field(default_factory=tuple)

    def one(self, fact: type[Any], commit: Commit) -> Any:
        found = self.all(fact, commit)
        if len(found) != 1:
            raise LookupError(fact.__name__)
        return found[0]

    def all(self, fact: type[Any], commit: Commit) -> tuple[Any, ...]:
        return tuple(one for one in self.stored if isinstance(one, fact))

    def shared(self, fact: type[Any], key: str) -> Any:
        raise LookupError(key)

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        return tuple(self.outside)


def context(facts: MemoryFacts, repo: GitRepo | None = None, **settings: Any) -> Any:
    """A Context as far as stages without a model need it."""
    return SimpleNamespace(settings=Settings(**settings), facts=facts, repos=SimpleNamespace(get=lambda _repo_id: repo))


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *WHO, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.decode("latin-1").strip()


def a_commit(sha: str = "0" * 40, time_s: int = 1_500_000_000) -> Commit:
    return Commit(1, 1, sha, ("1" * 40,), time_s, time_s, False, "fix", "s0_3")
