import pytest

from trustmine.review import Shown, complaint, lead, names

SHOWN = Shown(
    code="int parse_name(char *dst, const char *src, size_t len)\n{\n    memcpy(dst, src, len); /* fast path */\n}\n",
    message="parser: do not trust the length that the peer sent us\n",
)
CAUSE = "`len` comes from the caller and `memcpy` copies that many bytes into `dst` without a bound."
IMPACT = "A caller who controls `len` writes past the end of `dst`, a fixed-size buffer."


def test_an_explanation_of_the_code_alone_passes() -> None:
    assert complaint(CAUSE, IMPACT, SHOWN) is None


@pytest.mark.parametrize(
    "text",
    [
        "The commit adds a check.",
        "This was PATCHED later.",
        "The fix compares both.",
        "The bug is fixed by a check.",
        "As the diff shows, a check is missing.",
        "Before this change the length was trusted.",
        "See pull request 7.",
    ],
)
def test_speaking_of_the_commit_is_a_complaint(text: str) -> None:
    assert "code alone" in str(complaint(text, IMPACT, SHOWN))


@pytest.mark.parametrize(
    "text",
    [
        "A fixed-size buffer is written.",
        "The code dispatches on `len`.",
        "The difference underflows.",
        "The prefix is long.",
    ],
)
def test_innocent_words_are_none(text: str) -> None:
    assert complaint(f"`len` is trusted. {text}", IMPACT, SHOWN) is None


def test_a_name_of_the_code_may_be_any_word() -> None:
    shown = Shown(code="int patch(int commit) { return commit; }", message="m")
    assert complaint("`patch` returns `commit` unchecked.", IMPACT.replace("`", ""), shown) is None


def test_six_words_of_the_message_in_a_row_are_a_quotation() -> None:
    assert "do not trust the length that" in str(complaint("Do not trust the length that arrives.", IMPACT, SHOWN))
    assert complaint("Do not trust the length as `len` is.", IMPACT, SHOWN) is None


@pytest.mark.parametrize(
    "text", ["`max_len` is ignored.", "check_len() is missing.", "maxLen is ignored.", "dst_size is small."]
)
def test_names_that_are_not_in_the_code_are_a_complaint(text: str) -> None:
    assert "do not occur in the code" in str(complaint(text, IMPACT, SHOWN))


def test_the_languages_own_names_are_known() -> None:
    assert complaint("`len` may be SIZE_MAX, and `size_t` wraps at 0xFFFFffff.", IMPACT, SHOWN) is None


def test_empty_equal_and_repeated_texts_are_complaints() -> None:
    assert "in words" in str(complaint("...", IMPACT, SHOWN))
    assert "same text" in str(complaint(IMPACT, IMPACT.upper(), SHOWN))
    assert "already given" in str(complaint(CAUSE, IMPACT, SHOWN, [CAUSE.lower()]))
    loop = "The length is not checked before it is used. " * 2
    assert "repeats itself" in str(complaint(loop, IMPACT, SHOWN))
    assert "repeats itself" in str(complaint(CAUSE, loop, SHOWN))


def test_an_impact_may_take_up_a_condition_of_the_root_cause_but_must_say_more() -> None:
    condition = "the size of the input is larger than the buffer"
    cause = f"Nothing stops `memcpy` where {condition}."
    assert complaint(cause, f"If {condition}, bytes behind it are overwritten by what the peer sent.", SHOWN) is None
    assert "repeats the root cause" in str(complaint(cause, f"It happens if {condition}.", SHOWN))
    assert "repeats the root cause" in str(complaint(f"{cause} It crashes.", f"If {condition}. It crashes.", SHOWN))


@pytest.mark.parametrize(
    "text",
    [
        "impact:`len` at %d;cwe:nocache",
        ", impact is caused by `len`.",
        "}. `len` is a key.",
        "every `len` is one.",
        "`len` is",
    ],
)
def test_what_is_no_whole_sentence_is_a_complaint(text: str) -> None:
    assert "whole sentences" in str(complaint(text, IMPACT, SHOWN))
    assert "whole sentences" in str(complaint(CAUSE, text, SHOWN))


def test_a_sentence_may_begin_with_a_name_and_end_in_brackets() -> None:
    assert complaint("memcpy trusts `len`.", IMPACT, SHOWN) is None
    assert complaint("`len` is trusted (whatever it is.)", IMPACT, SHOWN) is None


def test_a_root_cause_that_names_nothing_of_the_code_is_a_complaint() -> None:
    assert "names nothing of the code" in str(complaint("Impact on a specific aspect is reported.", IMPACT, SHOWN))


def test_names_are_found_by_their_shape() -> None:
    text = "call(x) with `a->b + 1`, snake_case, camelCase, use-after-free, CWE-787, byte(s) and OpenSSL"
    assert names(text) == {"call", "a", "b", "snake_case", "camelCase"}


@pytest.mark.parametrize(
    ("finding", "left"),
    [
        ("`len` is not checked", "`len` is not checked"),
        ("`len` is not checked. Then `memcpy` runs over, which", "`len` is not checked."),
        ("It is trusted! So `dst` ends.", "It is trusted! So `dst` ends."),
        ("The code lacks a rule, do not trust the length that the peer sent us. `dst` is short.", "`dst` is short."),
        ("MAX_LEN is not looked at. `dst` is short.", "`dst` is short."),
        ("The patch checks `len`.", ""),
        ("", ""),
    ],
)
def test_a_lead_keeps_only_what_an_explanation_may_say(finding: str, left: str) -> None:
    assert lead(finding, SHOWN) == left
    assert not left or complaint(f"{left.rstrip('.')}.", IMPACT, SHOWN) is None


def test_a_complaint_never_comes_from_the_lead() -> None:
    said = lead("We do not trust the length that the peer sent us. The fix bounds MAX_LEN.", SHOWN)
    assert said == ""
