import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine import resources
from trustmine.errors import PromptError
from trustmine.prompts import Prompt, Prompts, fenced, parse
from trustmine.records import Message

HEAD = '+++\ntask = "judge"\ndescription = "d"\nmax_tokens = 7\n+++\n'


def prompt(body: str, head: str = HEAD) -> Prompt:
    return parse("p", (head + body).encode(), "p.md")


def test_a_prompt_becomes_a_request_with_its_slots_filled() -> None:
    p = prompt("# system\n\nBe exact.\n\n# user\nCode {{where}}:\n{{fenced code c}}\nWell?\n")
    request = p.request(where="in a.c", code="int x;\n", seed=3, temperature=0.5)
    assert request.messages == (
        Message("system", "Be exact."),
        Message("user", "Code in a.c:\n```c\nint x;\n```\nWell?"),
    )
    assert (request.task, request.prompt_name, request.max_tokens, request.seed) == ("judge", "p", 7, 3)
    assert request.temperature == 0.5
    assert p.slots == {"where", "code"}


def test_the_hash_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    content = (HEAD + "# user\nhi\n").encode()
    (tmp_path / "p.md").write_bytes(content)
    prompts = Prompts(tmp_path)
    assert prompts.hash("p") == prompts.get("p").hash == hashlib.sha256(content).hexdigest()


def test_slot_syntax_in_inserted_text_stays_text() -> None:
    request = prompt("# user\n{{a}}\n{{fenced b}}\n").request(a="{{b}} {{fenced a}}", b="{{a}}")
    assert request.messages[0].content == "{{b}} {{fenced a}}\n```\n{{a}}\n```"


@given(st.text(alphabet="`~ \n\r{}ab", max_size=60))
def test_no_text_closes_its_own_fence(text: str) -> None:
    lines = fenced(text, "c").split("\n")
    fence = lines[0].removesuffix("c")
    assert set(fence) == {"`"}
    assert len(fence) >= 3
    assert lines[-1] == fence
    assert not any(re.match(rf" {{0,3}}{fence}", line) for line in re.split("[\r\n]", "\n".join(lines[1:-1])))
    assert "\n".join(lines[1:-1]).rstrip("\n") == text.rstrip("\n")


def test_missing_and_unused_values_are_errors() -> None:
    p = prompt("# user\n{{a}}\n")
    with pytest.raises(PromptError, match="slot nobody fills"):
        p.request()
    with pytest.raises(PromptError, match="lacks a slot"):
        p.request(a="x", b="y")


def test_a_prompt_of_several_questions_asks_the_first_unless_another_is_given() -> None:
    p = prompt("# user\n{{a}}\n{{question}}\n", HEAD.replace("max", 'questions = ["q1?", "q2 {{a}}?"]\nmax'))
    assert p.questions == ("q1?", "q2 {{a}}?")
    assert p.request(a="x").messages == (Message("user", "x\nq1?"),)
    assert p.request(a="x", question=p.questions[1]).messages == (Message("user", "x\nq2 {{a}}?"),)
    with pytest.raises(PromptError, match="lacks a slot"):
        prompt("# user\nx\n").request(question="q1?")


@pytest.mark.parametrize(
    ("questions", "body", "why"),
    [
        ('questions = ["q?"]\n', "# user\nx\n", "go together"),
        ("", "# user\n{{question}}\n", "go together"),
        ('questions = ["q?", "q?"]\n', "# user\n{{question}}\n", "questions must differ"),
        ("questions = [1]\n", "# user\n{{question}}\n", "questions must be a list of strings"),
    ],
)
def test_questions_that_do_not_fit_the_prompt_are_errors(questions: str, body: str, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        prompt(body, HEAD.replace("max", questions + "max"))


def test_a_grammar_leaves_out_the_labels_of_the_file() -> None:
    p = prompt("# user\nx\n", HEAD.replace("max", 'labels = ["a", "b"]\nmax'))
    assert p.request().labels == ("a", "b")
    assert p.request(labels=("c",)).labels == ("c",)
    assert p.request(grammar='root ::= "a"').labels == ()


def test_a_continuation_keeps_the_conversation_before_it() -> None:
    before = prompt("# system\ns\n# user\nq\n").request().messages
    p = prompt("# assistant\n{{label}}\n# user\nwhy?\n")
    request = p.request(after=before, label="yes")
    assert request.messages == (*before, Message("assistant", "yes"), Message("user", "why?"))
    with pytest.raises(PromptError, match="continues a conversation"):
        p.request(label="yes")
    with pytest.raises(PromptError, match="begins a conversation"):
        prompt("# user\nq\n").request(after=before)


@pytest.mark.parametrize(
    ("head", "body", "why"),
    [
        ("", "# user\nx\n", "no front matter"),
        ("+++\ntask = \n+++\n", "# user\nx\n", "not TOML"),
        (HEAD.replace("task", "tusk"), "# user\nx\n", "unknown key tusk"),
        (HEAD.replace("7", "0"), "# user\nx\n", "max_tokens"),
        (HEAD.replace("7", "true"), "# user\nx\n", "max_tokens"),
        (HEAD.replace('"d"', "3"), "# user\nx\n", "description"),
        (HEAD.replace("max", 'labels = ["a", "a"]\nmax'), "# user\nx\n", "labels must differ"),
        (HEAD, "", "no section"),
        (HEAD, "hello\n# user\nx\n", "text before"),
        (HEAD, "# usr\nx\n", "unknown section"),
        (HEAD, "# user\n\n", "is empty"),
        (HEAD, "# user\nx\n# system\ny\n", "must be the first"),
        (HEAD, "# system\nx\n", "last section"),
        (HEAD, "# user\nx\n# user\ny\n", "take turns"),
        (HEAD, "# system\nx\n# assistant\ny\n# user\nz\n", "take turns"),
        (HEAD, "# user\n{{a\n", "not closed"),
        (HEAD, "# user\n{{A b c}}\n", "not a slot"),
        (HEAD, "# user\n{{a c}}\n", "not a slot"),
        (HEAD, "# user\n{{seed}}\n", "cannot be named"),
        (HEAD, "# user\nsee {{fenced a}}\n", "stand alone"),
    ],
)
def test_a_malformed_file_is_an_error_that_says_why(head: str, body: str, why: str) -> None:
    with pytest.raises(PromptError, match=why) as error:
        prompt(body, head)
    assert error.value.where == "p.md"


def test_a_file_that_is_missing_or_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes(HEAD.encode() + b"# user\n\xe9\n")
    with pytest.raises(PromptError, match="Cannot read prompt gone"):
        Prompts(tmp_path).get("gone")
    with pytest.raises(PromptError, match="not UTF-8"):
        Prompts(tmp_path).get("latin")


def test_every_prompt_that_comes_with_trustmine_loads() -> None:
    names = sorted(path.stem for path in resources.prompts_folder().glob("*.md"))
    assert names
    for name in names:
        assert Prompts(None).get(name).description
