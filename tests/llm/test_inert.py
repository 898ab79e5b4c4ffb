import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine.llm.inert import inert

SPELLINGS = [
    "<|im_start|>",
    "<|eot_id|>",
    "<|end|>",
    "<｜User｜>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<turn|>",
    "<|turn>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<think>",
    "</tool_call>",
    "<file_sep>",
    "<fim_prefix>",
    "<unused42>",
    "<0x0A>",
    "<__media__>",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_control_token_is_left(spelling: str) -> None:
    made = inert(f"a{spelling}{spelling}b")
    assert spelling not in made
    assert made.replace(" ", "") == f"a{spelling}{spelling}b"


@pytest.mark.parametrize(
    "code",
    [
        "#include <stdio.h>\nint a[SIZE], b = x<y || z>w, c = a|b;\n",
        "std::vector<int> v; if (a < b && c > d) v[i] |= MASK;",
        "template<typename T> class C : public B<T> {};",
        "x->y; a<<b; a>>b; a <= b | c >= d",
    ],
)
def test_code_stays_as_it_is(code: str) -> None:
    assert inert(code) == code


def test_what_is_no_unicode_is_replaced() -> None:
    assert inert("a\ud800b").encode() == b"a?b"


@given(st.lists(st.sampled_from([*SPELLINGS, "<", ">", "|", "/", "[", "]", "s", "|>", "<|", " "])).map("".join))
def test_taking_apart_twice_is_like_once(text: str) -> None:
    made = inert(text)
    assert inert(made) == made
    assert not any(spelling in made for spelling in SPELLINGS)
