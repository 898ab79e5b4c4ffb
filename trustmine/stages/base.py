"""The one shape that all stages have.

A stage is a module with a few constants and `run`. It sees one commit and a
Context of tools and earlier facts, never a database it could write. It
returns an Outcome: Advance with facts, or Reject with a reason; an exception
fails the row. A stage that asks a language model is a generator: it yields a
Request, is sent the Completion, and returns its Outcome. So one row may ask
several times, or not at all, and the worker can keep many rows in flight. A
question that does not fit the model's context raises ContextOverflow where it
was asked; a stage that lets it pass rejects the row as `context_overflow`.

    NAME, AFTER = "s0_2", "s0_1"
    VERSION = 1                       # raise when results would change
    SETTINGS = ("max_diff_chars",)    # the settings that results depend on
    PROMPTS = ()                      # the prompts, likewise
    REASONS = ("diff_too_large",)     # every reason it may reject for

    def run(commit: Commit, ctx: Context) -> Outcome: ...

A stage that asks a model may be told to do without: `UNASKED = (("masked_by", "fix"),)`
names the setting, one of SETTINGS, and its value then. It yields nothing, no
model is loaded for it, and its results depend on none.

A stage whose tools can work ahead may also have `prepare(commits, ctx)`, which
is told the rows that `run` will get next, in this order. Results do not
depend on it.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from trustmine.records import Commit, Completion, Fact, Label, Outcome, Request

if TYPE_CHECKING:
    from trustmine.calibration import Calibration
    from trustmine.config import Settings
    from trustmine.gitrepo import GitRepo
    from trustmine.keywords import KeywordMatcher
    from trustmine.prompts import Prompts

F = TypeVar("F", bound=Fact)
Asking = Generator[Request, Completion, Outcome]


class Facts(Protocol):
    """Read-only view of what earlier stages stored."""

    def __hash__(self) -> int: ...

    def one(self, fact: type[F], commit: Commit) -> F:
        """The one fact of this kind; raises LookupError if there is none."""
        ...

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        """All facts of this kind, in the order of their key; maybe none."""
        ...

    def shared(self, fact: type[F], *key: str) -> F:
        """A fact keyed by content (PreImage by oid), by the values of its key; raises LookupError."""
        ...

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        """The same, None where nobody has stored it yet."""
        ...

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        """Verdicts from outside, in the order of source and identifier."""
        ...


class Repos(Protocol):
    """The git repositories of the database, opened once per worker."""

    def get(self, repo_id: int) -> "GitRepo": ...


@dataclass(frozen=True)
class Context:
    """Tools opened once per worker, and reads of earlier facts."""

    settings: "Settings"
    facts: Facts
    repos: Repos
    prompts: "Prompts"
    keywords: "KeywordMatcher"
    calibration: "Calibration | None" = None  # of the present model and s0_3's prompt
    crash_words: "KeywordMatcher | None" = None  # only where they let commits in

    def trusted_labels(self, commit: "Commit") -> "list[Label]":
        """What lists of known commits say of this one, of the qualities that the settings trust."""
        return [label for label in self.facts.labels(commit) if label.quality in self.settings.trusted_labels]


class Stage(Protocol):
    """What the table of stages holds: a module of this shape."""

    @property
    def NAME(self) -> str: ...
    @property
    def AFTER(self) -> str: ...
    @property
    def VERSION(self) -> int: ...
    @property
    def KIND(self) -> str: ...  # git, cpu, parser, llm
    @property
    def SETTINGS(self) -> Sequence[str]: ...
    @property
    def PROMPTS(self) -> Sequence[str]: ...
    @property
    def REASONS(self) -> Sequence[str]: ...
    @property
    def run(self) -> "Callable[[Commit, Context], Outcome] | Callable[[Commit, Context], Asking]": ...
