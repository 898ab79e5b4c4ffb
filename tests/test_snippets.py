from hypothesis import given
from hypothesis import strategies as st

from trustmine.lines import LineRange
from trustmine.snippets import Margins, Snippet, declaring_line

CODE = """\
int f(struct s *p, int len)
{
    int i;
    for (i = 0; i < len; i++) {
        step(i);
    }
    p->len = len; /* not total */
    log("done", LIMIT);
    return i;
}
"""
BLOCK = LineRange(7, 7)


def test_a_block_is_shown_with_the_whole_statements_next_to_it() -> None:
    margins = Margins.of(CODE, "utf-8", "a.c", BLOCK)
    assert margins == Margins(before=3, after=1)
    snippet = Snippet.of(CODE, "utf-8", "a.c", BLOCK, margins)
    assert snippet.text.startswith("    for (i = 0;")
    assert snippet.text.endswith('    log("done", LIMIT);\n')


def test_words_are_identifiers_outside_of_comments_and_literals() -> None:
    snippet = Snippet.of(CODE, "utf-8", "a.c", BLOCK, Margins(3, 1))
    assert snippet.words == {"i", "len", "step", "p", "log", "LIMIT"}
    assert snippet.block_words == {"p", "len"}
    assert snippet.names.keys() == snippet.words


def test_a_block_of_which_nothing_is_left_is_its_surroundings() -> None:
    snippet = Snippet.of(CODE, "utf-8", "a.c", LineRange(7, 6), Margins(0, 1))
    assert snippet.text == "    p->len = len; /* not total */\n"
    assert snippet.block_words == frozenset()


def test_margins_end_where_the_function_does() -> None:
    assert Snippet.of(CODE, "utf-8", "a.c", BLOCK, Margins(99, 99)).text == CODE


def test_parameters_and_locals_are_declared_before_members_count() -> None:
    text = CODE.replace("    int i;\n", "    use(p->total);\n    int i, total;\n")
    assert declaring_line("len", text, "utf-8", "a.c") == 1
    assert declaring_line("total", text, "utf-8", "a.c") == 4
    assert declaring_line("nowhere", text, "utf-8", "a.c") is None


@given(st.binary(max_size=200), st.integers(1, 9), st.integers(0, 9))
def test_any_bytes_make_a_snippet(data: bytes, first: int, more: int) -> None:
    text = data.decode("latin-1")
    snippet = Snippet.of(text, "latin-1", "a.c", LineRange(first, first + more), Margins(1, 1))
    assert snippet.text in text
