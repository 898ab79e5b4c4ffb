"""The ordered table of stages. A new stage is one file, one line here, one test file."""

from collections.abc import Callable, Sequence
from types import MappingProxyType

from trustmine.config import Settings
from trustmine.errors import TrustmineError
from trustmine.records import Commit
from trustmine.stages import (
    s0_1_match,
    s0_2_filter,
    s0_3_classify,
    s1_1_refine,
    s1_2_mask,
    s2_0_merge,
    s2_1_elements,
    s2_2_validate,
    s3_1_locate,
    s3_2_explain,
    s4_instruct,
)
from trustmine.stages.base import Context, Stage

_MODULES: tuple[Stage, ...] = (
    s0_1_match,
    s0_2_filter,
    s0_3_classify,
    s1_1_refine,
    s1_2_mask,
    s2_0_merge,
    s2_1_elements,
    s2_2_validate,
    s3_1_locate,
    s3_2_explain,
    s4_instruct,
)
STAGES = MappingProxyType({stage.NAME: stage for stage in _MODULES})


def get(name: str) -> Stage:
    """The stage of this name; TrustmineError for an unknown one."""
    if name not in STAGES:
        raise TrustmineError(f"There is no stage {name!r}", "--stage", "Stages: " + ", ".join(STAGES))
    return STAGES[name]


def asks_model(stage: Stage, settings: Settings) -> bool:
    """Whether the stage asks a language model under these settings."""
    return stage.KIND == "llm" and all(getattr(settings, name) != value for name, value in unasked(stage))


def unasked(stage: Stage) -> tuple[tuple[str, str], ...]:
    """The setting that tells a stage to ask no model, with its value then; () if there is none."""
    return getattr(stage, "UNASKED", ())


def prepare(stage: Stage, commits: Sequence[Commit], ctx: Context) -> None:
    """Let the tools of a stage work ahead on rows that come next, where it has use for that."""
    ahead: Callable[[Sequence[Commit], Context], None] | None = getattr(stage, "prepare", None)
    if ahead is not None:
        ahead(commits, ctx)


def aside(stage: Stage) -> tuple[tuple[str, str], ...]:
    """(stage, reason) of rejected rows that this stage takes too."""
    return getattr(stage, "ASIDE", ())
