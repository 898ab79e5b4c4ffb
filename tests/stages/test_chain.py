"""One fix goes through all stages, with a model that answers well and with the built-in one."""

import dataclasses
import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import GeneratorType, SimpleNamespace
from typing import cast

import pytest
import stage_helpers as helpers
from conftest import GIT_ENV
from llm_helpers import ask as ask_model
from llm_helpers import engine
from stage_helpers import EXPLANATION, FUNCTION, HEADER_PATH, MERGED, PATH, MemoryFacts, ask, completion

from trustmine import samples
from trustmine.config import Settings, load
from trustmine.gitrepo import GitRepo
from trustmine.keywords import KeywordMatcher
from trustmine.prompts import Prompts
from trustmine.records import (
    Advance,
    Commit,
    Completion,
    ContextItem,
    Element,
    ElementCount,
    Explanation,
    FunctionPair,
    Instruction,
    KeywordMatch,
    Mask,
    MaskedFunction,
    MergedMask,
    Outcome,
    Reject,
    Request,
    Segment,
    UndefinedElement,
)
from trustmine.stages import STAGES
from trustmine.stages.base import Asking, Context

Git = Callable[..., str]
_, OPPOSITE = Prompts().get("s0_3_classify").questions
ANSWERS = {
    "rationale": "A length from the record is used unchecked.",
    "mask": "9-9",
    "choose_definition": "1",
    "list_elements": '[{"name": "memcpy", "kind": "function"}, {"name": "overflow", "kind": "variable"}]',
    "locate": "The length is never checked.\nLines: 9-9",
    "explain": json.dumps({"root_cause": EXPLANATION.root_cause, "impact": EXPLANATION.impact, "cwe": "CWE-787"}),
    "explain_again": json.dumps(
        {
            "root_cause": "`id` is filled from `data` although nothing says that `size` bytes suffice for it.",
            "impact": "Whoever controls `size` has `read_u16` read what lies behind `data`.",
            "cwe": "CWE-125",
        }
    ),
}


def good_model(request: Request) -> Completion:
    if request.labels:
        is_opposite = request.messages[-1].content.endswith(OPPOSITE)
        return helpers.judgement(0.15, 0.8, 0.05) if is_opposite else helpers.judgement(0.8, 0.15, 0.05)
    return completion(ANSWERS[request.task])


def write_repo(path: Path) -> tuple[GitRepo, Commit]:
    """The example, and the fix on top of it."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=path, check=True, capture_output=True, text=True, env=GIT_ENV)
        return done.stdout.strip()

    folder = path / "src"
    folder.mkdir(parents=True)
    git("init", "-q", "-b", "main")
    (folder / "record.h").write_text(helpers.HEADER)
    (folder / "record.c").write_text(helpers.PRE_FILE)
    git("add", "-A")
    git("commit", "-q", "-m", "records")
    (folder / "record.c").write_text(helpers.POST_FILE)
    git("commit", "-q", "-a", "-m", helpers.MESSAGE)
    row = helpers.commit(git("rev-parse", "HEAD"), parents=(git("rev-parse", "HEAD^"),), status="ingested")
    return GitRepo.open(path), row


def context(repo: GitRepo) -> Context:
    settings = Settings(max_elements=6)
    return Context(
        settings=settings,
        facts=MemoryFacts(),
        repos=SimpleNamespace(get={1: repo}.__getitem__),
        prompts=Prompts(),
        keywords=KeywordMatcher(settings.keywords, settings.match_mode),
    )


@pytest.fixture
def example(tmp_path: Path) -> tuple[GitRepo, Commit]:
    return write_repo(tmp_path / "repo")


@pytest.fixture
def repo(example: tuple[GitRepo, Commit]) -> GitRepo:
    return example[0]


@pytest.fixture
def row(example: tuple[GitRepo, Commit]) -> Commit:
    return example[1]


@pytest.fixture
def ctx(repo: GitRepo) -> Context:
    return context(repo)


def go(stage: str, row: Commit, ctx: Context, model: Callable[[Request], Completion]) -> tuple[Outcome, list[Request]]:
    """Runs one stage and keeps its facts if the row passes."""
    run = STAGES[stage].run(row, ctx)
    outcome, requests = ask(cast(Asking, run), model) if isinstance(run, GeneratorType) else (cast(Outcome, run), [])
    if isinstance(outcome, Advance):
        cast(MemoryFacts, ctx.facts).add(outcome.facts)
    return outcome, requests


def test_a_fix_becomes_training_instructions(row: Commit, ctx: Context) -> None:
    for stage in STAGES:
        outcome, _ = go(stage, row, ctx, good_model)
        assert isinstance(outcome, Advance), (stage, outcome)
    facts = ctx.facts
    assert facts.one(FunctionPair, row).pre_text == helpers.PRE_FUNCTION
    assert facts.one(Mask, row).removed == helpers.REMOVED
    assert facts.one(MergedMask, row) == MERGED
    names = {element.name: element for element in facts.all(Element, row)}
    assert {undefined.name for undefined in facts.all(UndefinedElement, row)} <= names.keys()
    assert names["HEADER_SIZE"].def_path == HEADER_PATH
    assert names["read_u16"].def_path == PATH
    assert facts.one(ElementCount, row).n_hallucinated == 1
    kept = {item.name: item.reason for item in facts.all(ContextItem, row)}
    assert (kept["memcpy"], kept["read_u16"]) == ("common_call", None)
    assert facts.one(Segment, row).n_fix_lines == 1
    assert facts.one(Explanation, row).id == row.id * 100 + 1
    made = {(one.task, one.example_no): one for one in facts.all(Instruction, row)}
    assert "#define HEADER_SIZE 4" in made["locate", 1].input
    assert helpers.FIXED in made["infill", 1].output
    assert FUNCTION.post_text in made["refine", 1].output


def test_in_the_wide_profile_a_forgotten_check_becomes_training_instructions(
    repo: GitRepo, git: Git, ctx: Context, tmp_path: Path
) -> None:
    folder = tmp_path / "repo"
    check = "    if (name_len >= sizeof(out->name))\n        return RECORD_BAD;\n"
    fixed = helpers.PRE_FUNCTION.replace(helpers.REMOVED, check + helpers.REMOVED)
    fixed = fixed.replace("    return RECORD_OK;\n", "    log_record(out);\n    return RECORD_OK;\n")
    padding = "int unused;\n" * 9
    for head, function, news in (("", helpers.PRE_FUNCTION, "old"), ("#include <x.h>\n", fixed, "SECRET OF THE NEWS")):
        (folder / "src" / "record.c").write_text(head + padding + helpers.TOP + function)
        (folder / "NEWS").write_text(news)
        (folder / "src" / "test_record.c").write_text(function)
        git("add", "-A")
        git("commit", "-q", "-m", "record: crafted names, see https://github.com/o/r/issues/9")
    settings = load(flags={"profile": "wide", "max_elements": 6}, env={}).settings
    ctx = dataclasses.replace(ctx, settings=settings, keywords=KeywordMatcher(settings.keywords, settings.match_mode))
    row = helpers.commit(
        git("rev-parse", "HEAD"),
        parents=(git("rev-parse", "HEAD^"),),
        status="ingested",
        message="record: crafted names, see https://github.com/o/r/issues/9\n",
    )
    asked = []
    for stage in STAGES:
        outcome, requests = go(stage, row, ctx, good_model)
        assert isinstance(outcome, Advance), (stage, outcome)
        asked += requests
    assert asked
    assert not any(
        "SECRET" in message.content or "test_record" in message.content for r in asked for message in r.messages
    )
    facts = ctx.facts
    assert facts.one(KeywordMatch, row).rules == ("keywords", "identifiers")
    pair = facts.one(FunctionPair, row)
    assert (pair.pre_text, pair.post_text) == (helpers.PRE_FUNCTION, fixed)
    assert (pair.deleted_lines, pair.fix_lines) == ((), (9, 11))
    assert (facts.one(Mask, row).n_fix_lines, facts.one(MaskedFunction, row).n_fix_lines_missed) == (1, 1)
    assert facts.one(MergedMask, row).fixed == check + helpers.REMOVED
    assert facts.one(Segment, row).n_fix_lines == 1
    made = {(one.task, one.example_no): one for one in facts.all(Instruction, row)}
    assert check in made["infill", 1].output
    assert "The candidate adds its lines 9-10 and adds its line 13." in made["calibrate", 1].output


PATCHED = (helpers.MESSAGE, "-    memcpy(out->name, data + HEADER_SIZE, name_len);\n")
LISTED = (samples.numbered(helpers.PRE_FUNCTION), helpers.READ_U16)
# Tasks that show the same evidence: a later one, an earlier one, what both must have in common, and which share of the
# earlier prompt that is at least: all where a conversation goes on, else all but the question.
SHARED = [
    ("judge", "judge", PATCHED, 0.9),
    ("rationale", "judge", PATCHED, 1.0),
    ("mask", "judge", PATCHED, 1.0),
    ("choose_definition", "list_elements", (helpers.REMOVED, helpers.FIXED), 0.8),
    ("explain", "locate", LISTED, 0.65),
    ("explain", "explain", LISTED, 0.65),
    ("explain_again", "explain", LISTED, 0.65),
]
MIN_SHARED_TOKENS = 400


def test_tasks_that_show_the_same_evidence_begin_with_the_same_tokens(
    row: Commit, ctx: Context, git: Git, tmp_path: Path
) -> None:
    """So an engine reads it once: system text and evidence come first, the question last."""
    folder = tmp_path / "repo"
    files = {
        "src/record.c": helpers.PRE_FILE,
        "src/record.h": helpers.HEADER.replace("#define HEADER_SIZE 4\n", '#include "one.h"\n#include "two.h"\n'),
        "one.h": "#define HEADER_SIZE 8\n",
        "two.h": "#define HEADER_SIZE 16\n",
    }
    for path, text in files.items():
        (folder / path).write_text(text)
    git("add", "-A")
    git("commit", "-q", "-m", "two sizes of a header")
    (folder / "src" / "record.c").write_text(helpers.POST_FILE)
    git("commit", "-q", "-a", "-m", helpers.MESSAGE)
    row = dataclasses.replace(row, sha=git("rev-parse", "HEAD"), parents=(git("rev-parse", "HEAD^"),))

    def two_segments(request: Request) -> Completion:  # the second is explained like the first, which is sent back
        return completion("It is wrong.\nLines: 7-7, 9-9") if request.task == "locate" else good_model(request)

    asked: list[Request] = []
    for stage in STAGES:
        _, requests = go(stage, row, ctx, two_segments)
        asked += requests
    assert [request.task for request in asked] == [
        *(
            "judge",
            "judge",
            "rationale",
            "mask",
            "list_elements",
            "choose_definition",
            "locate",
            "explain",
            "explain",
            "explain_again",
        )
    ]
    model = engine()._model
    for later, earlier, evidence, share in SHARED:
        of_task = [request for request in asked if request.task == earlier]
        first = of_task[0] if later == earlier else of_task[-1]
        second = next(request for request in reversed(asked) if request.task == later)
        ids, others = model.tokenise_chat(first), model.tokenise_chat(second)
        n_shared = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(ids, others, strict=False)))
        assert n_shared >= max(MIN_SHARED_TOKENS, share * len(ids)), (later, earlier)
        shared = model.text(ids[:n_shared])
        assert all(text in shared for text in evidence), (later, earlier)


@dataclasses.dataclass(frozen=True)
class Step:
    """What a stage made of the built-in model's answers: cut off after one token, and whole."""

    stage: str
    cut: Outcome | None  # None: it asked for no form
    whole: Outcome
    requests: list[Request]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """The example through all stages. Whole answers follow cut ones, while the model has their prompts at hand.

    What the model answers is often wrong; a good model's facts then stand in for it.
    """
    repo, row = write_repo(tmp_path_factory.mktemp("chain") / "repo")
    ctx = context(repo)
    facts = cast(MemoryFacts, ctx.facts)
    found = []
    for stage in STAGES:
        asks_form = False

        def cut(request: Request) -> Completion:
            nonlocal asks_form
            if request.grammar is None:
                return good_model(request)
            asks_form = True
            answer = ask_model(dataclasses.replace(request, max_tokens=1))  # no grammar can be finished with that
            assert answer.finish_reason == "length"
            return answer

        kept = len(facts.stored)
        short, _ = go(stage, row, ctx, cut)
        del facts.stored[kept:]
        whole, requests = go(stage, row, ctx, ask_model)
        del facts.stored[kept:]
        found.append(Step(stage, short if asks_form else None, whole, requests))
        good, _ = go(stage, row, ctx, good_model)
        assert isinstance(good, Advance), (stage, good)
    return found


def test_an_answer_that_does_not_come_to_its_end_is_a_counted_reason_and_stores_nothing(steps: list[Step]) -> None:
    reasons = {}
    for step in steps:
        if step.cut is not None:
            assert isinstance(step.cut, Reject)
            assert step.cut.reason in STAGES[step.stage].REASONS
            assert step.cut.facts == ()
            reasons[step.stage] = step.cut.reason
    assert reasons == {
        "s1_2": "unparsable",
        "s2_1": "unparsable",
        "s3_1": "unparsable",
        "s3_2": "bad_explanation",
    }


def test_the_built_in_model_answers_every_stage_in_form(steps: list[Step]) -> None:
    assert [step.stage for step in steps] == list(STAGES)
    for step in steps:
        stage, outcome = step.stage, step.whole
        assert isinstance(outcome, Advance) or outcome.reason in STAGES[stage].REASONS
        assert bool(step.requests) == (STAGES[stage].KIND == "llm")
        if stage in ("s2_1", "s2_2"):  # a list in form is enough to pass
            assert isinstance(outcome, Advance)
        if stage in ("s1_2", "s3_1"):
            for fact in outcome.facts:
                if isinstance(fact, Mask | Segment):
                    text = fact.removed if isinstance(fact, Mask) else fact.snippet
                    assert text in helpers.PRE_FUNCTION
