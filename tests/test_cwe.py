"""Weaknesses and their pillars."""

import pytest

from trustmine.cwe import top_class


@pytest.mark.parametrize(
    ("cwe", "pillar"),
    [
        ("CWE-787", "CWE-664"),
        ("CWE-416", "CWE-664"),
        ("CWE-190", "CWE-682"),
        ("CWE-476", "CWE-710"),
        ("CWE-20", "CWE-707"),
        ("CWE-664", "CWE-664"),
        ("CWE-99999", ""),
        ("CWE-", ""),
        ("", ""),
    ],
)
def test_a_weakness_belongs_to_a_pillar(cwe: str, pillar: str) -> None:
    assert top_class(cwe)[0] == pillar
    assert bool(top_class(cwe)[1]) == bool(pillar)
