"""Weaknesses: names, hierarchy, Top 25."""

import pytest

from trustmine import config, cwe


def test_names_and_parents_are_those_of_the_catalogue() -> None:
    assert cwe.name("CWE-787") == "Out-of-bounds Write"
    assert cwe.ancestors("CWE-787") == ("CWE-119", "CWE-118", "CWE-664")
    # Nearest first: three parents, the primary one before the others, then theirs.
    assert cwe.ancestors("CWE-415")[:7] == (
        "CWE-825",
        "CWE-1341",
        "CWE-666",
        "CWE-119",
        "CWE-672",
        "CWE-675",
        "CWE-664",
    )
    assert len(cwe.ancestors("CWE-415")) == len(set(cwe.ancestors("CWE-415")))
    assert cwe.ancestors("CWE-664") == ()


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("CWE-787", ("CWE-787",)),
        ("cwe-0787, CWE 125;CWE_20|cwe416", ("CWE-787", "CWE-125", "CWE-20", "CWE-416")),
        ("['CWE-787', 'CWE-787']", ("CWE-787",)),
        ("787, 0125", ("CWE-787", "CWE-125")),
        ("787 125", ("CWE-787", "CWE-125")),
        ("787.0", ("CWE-787",)),
        ("CWE-119, 125", ("CWE-119", "CWE-125")),
        ("CWE-120: Buffer Copy without Checking Size of Input, Classic Overflow (4.14)", ("CWE-120",)),
        ("CWE-ID: 79/CWE\u2011787", ("CWE-79", "CWE-787")),
        ("NVD-CWE-noinfo, CWE-787", ("CWE-787",)),
        ("-1", ()),
        ("4.14.1", ()),
        ("CWE-0", ()),
        ("CWE-1234567", ()),
        ("overflow 787", ()),
        ("", ()),
    ],
)
def test_all_weaknesses_of_a_cell_are_read(cell: str, found: tuple[str, ...]) -> None:
    assert cwe.read_all(cell) == found


@pytest.mark.parametrize(
    ("one", "pillar"),
    [("CWE-416", "CWE-664"), ("CWE-190", "CWE-682"), ("CWE-476", "CWE-710"), ("CWE-835", "CWE-691"),
     ("CWE-664", "CWE-664"), ("CWE-399", None), ("CWE-999999", None), ("", None)],
)  # fmt: skip
def test_the_top_level_is_the_pillar_by_primary_parents(one: str, pillar: str | None) -> None:
    assert cwe.top_level(one) == pillar


def test_every_weakness_that_trustmine_may_name_or_that_is_a_top_one_has_a_name_and_a_pillar() -> None:
    for one in (*config.CWES, *cwe.TOP_25):
        assert cwe.name(one), one
        pillar = cwe.top_level(one)
        assert pillar is not None and (pillar == one or pillar in cwe.ancestors(one)), one
        assert all(cwe.name(above) for above in cwe.ancestors(one)), one


def test_the_top_25_are_25_and_do_not_count_what_stands_below_them() -> None:
    assert len(set(cwe.TOP_25)) == 25
    assert cwe.in_top25("CWE-787") and not cwe.in_top25("CWE-124")


@pytest.mark.parametrize(
    ("text", "read"),
    [("CWE-787", "CWE-787"), (" cwe-0787 ", "CWE-787"), ("787", "CWE-787"), ("CWE-0", None), ("NVD-CWE-noinfo", None),
     ("", None), ("CWE-79 CWE-89", None), ("CWE-" + "9" * 50, None)],
)  # fmt: skip
def test_an_identifier_has_one_spelling(text: str, read: str | None) -> None:
    assert cwe.read(text) == read


def test_a_name_that_is_not_known_is_none_and_has_nothing_above_it() -> None:
    assert cwe.name("CWE-999999") is None
    assert cwe.ancestors("CWE-999999") == ()
