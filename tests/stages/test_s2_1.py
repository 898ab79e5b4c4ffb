import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stage_helpers as helpers
from stage_helpers import FUNCTION, HEADER_PATH, MASK, MERGED, PATH, commit, completion, context, say

from trustmine.definitions import DefinitionFinder
from trustmine.gitrepo import GitRepo
from trustmine.records import Advance, BlobSymbols, Element, ElementCount, Fact, FunctionPair, PreImage, Reject, Request
from trustmine.stages import s2_1_elements
from trustmine.stages.s2_1_elements import KINDS

Git = Callable[..., str]
Run = Callable[..., tuple[dict[str, Element], ElementCount, list[Request]]]

PRE_IMAGE = PreImage(FUNCTION.pre_oid, len(helpers.PRE_FILE), zlib.compress(helpers.PRE_FILE.encode()))
FACTS: tuple[Fact, ...] = (FUNCTION, MASK, MERGED, PRE_IMAGE)


def listed(*elements: tuple[str, str]) -> str:
    return json.dumps([{"name": name, "kind": kind} for name, kind in elements])


@pytest.fixture
def run(git: Git, tmp_path: Path) -> Run:
    """Runs the stage on the example in a repository that holds it, with more files where given."""

    def run(*texts: str, files: dict[str, str] | None = None, facts: tuple[Fact, ...] = FACTS, **settings: Any) -> Any:
        git("--version")
        for path, text in {PATH: helpers.PRE_FILE, HEADER_PATH: helpers.HEADER, **(files or {})}.items():
            file = tmp_path / "repo" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "state before the fix")
        repo = GitRepo.open(str(tmp_path / "repo"))
        row = commit(parents=(git("rev-parse", "HEAD"),))
        ctx = context(*facts, repos=SimpleNamespace(get={1: repo}.__getitem__), **settings)
        outcome, requests = say(s2_1_elements.run(row, ctx), *texts)
        assert isinstance(outcome, Advance)
        *elements, count = outcome.facts
        assert isinstance(count, ElementCount)
        indexed = {fact.oid: fact.n_symbols for fact in elements if isinstance(fact, BlobSymbols)}
        assert indexed[helpers.blob(helpers.PRE_FILE)] == 2, "the tree's symbols go along to be stored"
        return {one.name: one for one in elements if isinstance(one, Element)}, count, requests

    return run


def test_elements_of_parser_and_model_are_united(run: Run) -> None:
    elements, count, _ = run(listed(("memcpy", "function"), ("name_len", "variable")))
    assert elements["memcpy"].found_by == "both"
    assert elements["data"].found_by == "parser"
    assert (count.n_parser + count.n_model - count.n_both, count.n_hallucinated) == (len(elements), 0)
    assert count.n_model == count.n_both == 2


def test_the_parser_alone_asks_nothing_and_takes_the_nearest_definition(run: Run) -> None:
    twin = {"src/twin.h": "#define HEADER_SIZE 8\n", "src/record.h": helpers.HEADER + '#include "twin.h"\n'}
    asked, _, _ = run(listed(), "1", files=twin)
    assert (asked["HEADER_SIZE"].n_candidates, asked["HEADER_SIZE"].chosen_by) == (2, "model")
    elements, count, requests = run(files=twin, elements_by="parser")
    assert requests == []
    assert (elements["HEADER_SIZE"].chosen_by, elements["HEADER_SIZE"].def_path) == ("parser", HEADER_PATH)
    assert {one.found_by for one in elements.values()} == {"parser"}
    assert (count.n_parser, count.n_model, count.n_hallucinated) == (len(elements), 0, 0)


def test_the_model_may_add_what_the_parser_takes_for_no_name(run: Run) -> None:
    pre = FUNCTION.pre_text.replace("name_len);\n", "(size_t)name_len);\n")
    function = dataclasses.replace(FUNCTION, pre_text=pre)
    facts = tuple(function if fact is FUNCTION else fact for fact in FACTS)
    elements, count, _ = run(listed(("size_t", "typedef")), facts=facts)
    assert (elements["size_t"].found_by, elements["size_t"].kind) == ("model", "typedef")
    assert (count.n_model, count.n_both) == (1, 0)


def test_a_name_that_is_not_in_the_code_is_counted_and_never_kept(run: Run) -> None:
    said = listed(("strlcpy", "function"), ("strlcpy", "macro"), ("sizeof", "function"), ("bytes", "variable"))
    elements, count, _ = run(said)
    assert not {"strlcpy", "sizeof", "bytes"} & elements.keys()
    assert (count.n_model, count.n_hallucinated) == (0, 3)


def test_names_in_comments_and_strings_are_not_in_the_code(run: Run) -> None:
    pre = FUNCTION.pre_text.replace("name_len);\n", 'name_len); /* see frame */ log("packet");\n')
    function = dataclasses.replace(FUNCTION, pre_text=pre)
    facts = tuple(function if fact is FUNCTION else fact for fact in FACTS)
    elements, count, _ = run(listed(("frame", "struct"), ("packet", "struct")), facts=facts)
    assert not {"frame", "packet"} & elements.keys()
    assert count.n_hallucinated == 2


def test_both_snippets_count_and_each_element_knows_where_it_is(run: Run) -> None:
    elements, _, (request,) = run(listed())
    assert (elements["RECORD_BAD"].in_pre, elements["RECORD_BAD"].in_post) == (False, True)
    assert (elements["memcpy"].in_pre, elements["memcpy"].in_post) == (True, True)
    question = request.messages[-1].content
    # The block with the statement before and after it, in both versions.
    assert (
        "```c\n    name_len = read_u16(data + 2);\n    memcpy(out->name, data + HEADER_SIZE, name_len);\n" in question
    )
    assert "    if (name_len >= sizeof(out->name)" in question
    assert "return RECORD_OK" not in question


def test_definitions_come_from_the_file_then_from_the_headers(run: Run) -> None:
    elements, _, _ = run(listed())
    read = elements["read_u16"]
    assert (read.kind, read.def_path, read.def_first_line, read.def_last_line) == ("function", PATH, 4, 7)
    assert read.definition == helpers.READ_U16
    size = elements["HEADER_SIZE"]
    assert (size.kind, size.def_path, size.definition) == ("macro", HEADER_PATH, "#define HEADER_SIZE 4\n")
    assert elements["RECORD_BAD"].kind == "constant"
    assert (size.chosen_by, size.missing, size.n_candidates) == ("parser", None, 1)


def test_parameters_and_locals_are_defined_where_the_function_declares_them(run: Run) -> None:
    elements, _, _ = run(listed(("name_len", "pointer variable")))
    local = elements["name_len"]
    assert (local.def_path, local.def_first_line, local.definition) == (PATH, 11, "    size_t name_len;\n")
    parameter = elements["data"]
    assert (parameter.kind, parameter.def_first_line) == ("pointer variable", 9)
    assert parameter.definition == helpers.PRE_FUNCTION.split("\n")[0] + "\n"


def test_a_local_that_only_the_fix_declares_has_no_definition(run: Run) -> None:
    post = FUNCTION.post_text.replace(
        "    if (name_len >=", "    size_t room = sizeof(out->name);\n    if (name_len >="
    )
    function = dataclasses.replace(FUNCTION, post_text=post, added_lines=(9, 10, 11, 12))
    merged = dataclasses.replace(MERGED, post_last_line=12)
    elements, _, _ = run(listed(), facts=(function, MASK, merged, PRE_IMAGE))
    assert (elements["room"].missing, elements["room"].definition) == ("local", None)


def test_what_is_nowhere_is_said_to_be_missing(run: Run) -> None:
    elements, _, _ = run(listed(("memcpy", "macro")))
    assert (elements["memcpy"].missing, elements["memcpy"].n_candidates) == ("not_found", 0)
    assert elements["memcpy"].kind == "macro"  # the use proves neither function nor macro: the model decides


BOTH = '#include "../a/one.h"\n#include "../b/two.h"\n'
TWO = {
    HEADER_PATH: helpers.HEADER.replace("#define HEADER_SIZE 4\n", "") + BOTH,
    "a/one.h": "#define HEADER_SIZE 8\n",
    "b/two.h": "#define HEADER_SIZE 16\n",
}


def test_the_model_picks_among_several_definitions(run: Run) -> None:
    elements, _, (_, question) = run(listed(), "2", files=TWO)
    size = elements["HEADER_SIZE"]
    assert (size.definition, size.def_path, size.chosen_by) == ("#define HEADER_SIZE 16\n", "b/two.h", "model")
    assert size.n_candidates == 2
    text = question.messages[-1].content
    assert "/* 1: macro in a/one.h:1-1 */\n#define HEADER_SIZE 8\n" in text
    assert "memcpy(out->name, data + HEADER_SIZE" in text


def test_the_model_may_say_that_none_fits(run: Run) -> None:
    elements, _, _ = run(listed(), "0", files=TWO)
    assert (elements["HEADER_SIZE"].missing, elements["HEADER_SIZE"].chosen_by) == ("none_fits", None)


@pytest.mark.parametrize("answer", ["the first", "7"])
def test_the_parsers_nearest_stands_where_the_answer_is_no_candidate(run: Run, answer: str) -> None:
    elements, _, _ = run(listed(), answer, files=TWO)
    assert (elements["HEADER_SIZE"].def_path, elements["HEADER_SIZE"].chosen_by) == ("a/one.h", "parser")


def test_nobody_is_asked_about_names_that_are_left_out_anyway(run: Run) -> None:
    files = {
        HEADER_PATH: helpers.HEADER + BOTH,
        "a/one.h": "#define memcpy(a, b, c) copy(a, b, c)\n",
        "b/two.h": "#define memcpy(a, b, c) (a)\n",
    }
    elements, _, requests = run(listed(), files=files)
    assert (elements["memcpy"].n_candidates, elements["memcpy"].chosen_by) == (2, "parser")
    assert len(requests) == 1
    _, _, requests = run(listed(), "1", files=files, common_calls=("strcpy",))
    assert len(requests) == 2


def test_no_row_asks_about_more_names_than_the_bound(run: Run) -> None:
    names = [f"check_{n}" for n in range(s2_1_elements.MAX_PICKS + 3)]
    pre = FUNCTION.pre_text.replace("name_len);\n", "name_len" + "".join(f" + {name}(1)" for name in names) + ");\n")
    function = dataclasses.replace(FUNCTION, pre_text=pre)
    macros = "".join(f"#define {name}(x) x\n" for name in names)
    facts = tuple(function if fact is FUNCTION else fact for fact in FACTS)
    files = {HEADER_PATH: helpers.HEADER + BOTH, "a/one.h": macros, "b/two.h": macros}
    elements, _, _ = run(listed(), *["1"] * s2_1_elements.MAX_PICKS, facts=facts, files=files)
    chosen = [elements[name].chosen_by for name in names]
    assert (chosen.count("model"), chosen.count("parser")) == (s2_1_elements.MAX_PICKS, 3)


def test_what_is_stored_already_is_not_handed_in_again(git: Git, tmp_path: Path, run: Run) -> None:
    first, _, _ = run(listed())
    repo, sha = GitRepo.open(str(tmp_path / "repo")), git("rev-parse", "HEAD")
    facts = [*FACTS, *DefinitionFinder(repo, context(*FACTS).facts).news(sha)]
    assert len(facts) == len(FACTS) + 2
    ctx = context(*facts, repos=SimpleNamespace(get={1: repo}.__getitem__))
    outcome, _ = say(s2_1_elements.run(commit(parents=(sha,)), ctx), listed())
    assert [type(fact) for fact in outcome.facts] == [*[Element] * len(first), ElementCount]
    found = [fact for fact in outcome.facts if isinstance(fact, Element)]
    assert outcome.facts[:-1] == tuple(first[fact.name] for fact in found)


@pytest.mark.parametrize("text", ["", "memcpy", "[1]", '[{"name": "a b", "kind": "function"}]'])
def test_a_list_that_cannot_be_parsed_rejects_the_row(text: str) -> None:
    outcome, _ = say(s2_1_elements.run(commit(), context(*FACTS)), text)
    assert outcome == Reject("unparsable")


def test_a_list_that_was_cut_off_rejects_the_row() -> None:
    outcome, _ = say(s2_1_elements.run(commit(), context(*FACTS)), completion(listed(), "length"))
    assert outcome == Reject("unparsable")


def test_the_prompt_explains_every_kind() -> None:
    system = context().prompts.get("s2_1_elements").turns[0].content
    assert all(kind in system for kind in KINDS)


def test_a_path_that_moved_is_looked_up_where_it_was(run: Run) -> None:
    function: FunctionPair = dataclasses.replace(FUNCTION, path="moved/record.c")
    elements, _, _ = run(listed(), facts=(function, MASK, MERGED, PRE_IMAGE))
    assert elements["HEADER_SIZE"].def_path == HEADER_PATH
    assert elements["name_len"].def_path == PATH


def test_a_member_is_that_of_the_struct_it_is_taken_from(run: Run) -> None:
    files = {HEADER_PATH: "struct first {\n    long name;\n};\n" + helpers.HEADER}
    elements, _, requests = run(listed(), files=files)
    assert len(requests) == 1, "nothing is left to choose"
    assert elements["name"].definition == "    char name[NAME_SIZE];\n"
