"""Keywords as `git log -i -F --grep` finds them; identifiers in their official spelling."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustmine.config import KEYWORDS
from trustmine.keywords import KeywordMatcher, find_identifiers, fold

ASCII = st.text(st.sampled_from("abceflnrsuAEFRSU-_ .9"), max_size=40)
WORDS = ["free", "use-after-free", "uaf", "null", "e-a", "-a", "a", "FR", "_", "b-"]


def test_keywords_come_in_the_order_of_the_list() -> None:
    matcher = KeywordMatcher(KEYWORDS, "substring")
    assert matcher.find("Fixed a Use-After-Free in the BUFFER code") == ("free", "use-after-free", "buffer", "fix")
    assert matcher.find("prefix") == ("fix",)
    assert matcher.find("") == ()


@settings(max_examples=300, deadline=None)
@given(ASCII)
def test_substring_mode_finds_every_overlapping_keyword(message: str) -> None:
    wanted = tuple(word for word in WORDS if word.lower() in message.lower())
    assert KeywordMatcher(WORDS, "substring").find(message) == wanted


@settings(max_examples=300, deadline=None)
@given(ASCII)
def test_word_mode_is_a_search_between_word_boundaries(message: str) -> None:
    def stands(word: str) -> bool:
        left = r"(?<!\w)" if re.match(r"\w", word) else ""
        right = r"(?!\w)" if re.search(r"\w$", word) else ""
        return re.search(left + re.escape(word) + right, message, re.IGNORECASE) is not None

    assert KeywordMatcher(WORDS, "word").find(message) == tuple(filter(stands, WORDS))


def test_word_mode_takes_hyphens_for_boundaries() -> None:
    matcher = KeywordMatcher(["free", "use-after-free", "fix"], "word")
    assert matcher.find("(use-after-free)") == ("free", "use-after-free")
    assert matcher.find("reuse-after-free") == ("free",)
    assert matcher.find("use-after-freed prefix fix_it fixé") == ()


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_folding_keeps_positions(message: str) -> None:
    assert len(fold(message)) == len(message)
    assert fold(fold(message)) == fold(message)


def test_wrong_lists_and_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        KeywordMatcher(["a", ""], "word")
    with pytest.raises(ValueError, match="mode"):
        KeywordMatcher(["a"], "regex")
    assert KeywordMatcher([], "word").find("anything") == ()


def test_substring_mode_equals_git_grep(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C.UTF-8"}
    env |= {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, env=env, input=stdin, capture_output=True, check=True)
        return done.stdout.decode()

    git("init", "-q")
    messages = [
        "Fix leak",
        "UNSAFE\nuse",
        "pre-FIX-ed",
        "ÜBERLAUF",
        "überlauf",
        "a.b",
        "axb",
        "\u212a",
        "mai\u017f",
        "STRASSE",
        "straße",
    ]
    messages += ["use-after\n-free", "[x]*", "Ελλάς", "ΕΛΛΆΣ"]
    shas = {}
    for message in messages:
        git("commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", "-", stdin=message.encode())
        shas[git("rev-parse", "HEAD").strip()] = message
    for keyword in ["fix", "safe", "überlauf", "a.b", "k", "mais", "straße", "use-after-free", "[x]*", "x", "ελλάς"]:
        listed = git("log", "--format=%H", "-i", "-F", f"--grep={keyword}").split()
        wanted = {shas[sha] for sha in listed}
        assert {m for m in messages if KeywordMatcher([keyword], "substring").find(m)} == wanted, keyword


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("cve-2023-38545 and CVE-2023-38545, Cve-2000-0973.", ["CVE-2000-0973", "CVE-2023-38545"]),
        ("fix-CVE-2021-1234-for-v2", ["CVE-2021-1234"]),
        ("XCVE-2021-1234 CVE-2021-123 CVE-2021-1234a CVE-21-1234 _CVE-2021-1234", []),
        ("ghsa-4W8X-23GH-jmpq", ["GHSA-4w8x-23gh-jmpq"]),
        ("GHSA-aaaa-bbbb-cccc", []),
        ("CWE-079, cwe-79; CWE-787", ["CWE-787", "CWE-79"]),
        ("CWE- CWE-x CWE-1234567 CVE-2020-12345678901234567890", []),
        ("CVE-２０２０-1234", []),
    ],
)
def test_identifiers_are_normalised_sorted_and_whole(message: str, wanted: list[str]) -> None:
    assert [found.value for found in find_identifiers(message)] == wanted
    assert all(found.kind == found.value.partition("-")[0] for found in find_identifiers(message))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("OSV-2021-12 osv-2020-3456", [("OSV", "OSV-2020-3456"), ("OSV", "OSV-2021-12")]),
        (
            "see https://issues.oss-fuzz.com/issues/42537171.",
            [("OSS-Fuzz", "42537171"), ("issue", "issues.oss-fuzz.com/issues/42537171")],
        ),
        (
            "https://bugs.chromium.org/p/oss-fuzz/issues/detail?id=123",
            [("OSS-Fuzz", "123"), ("issue", "bugs.chromium.org/p/oss-fuzz/issues/detail?id=123")],
        ),
        ("Fixes: 12345/clusterfuzz-testcase-minimized-x", [("OSS-Fuzz", "12345")]),
        ("oss-fuzz issue 4567", [("OSS-Fuzz", "4567")]),
        ("fixes #12, closes #13, fixed issue #14 and #15", [("issue", "#12"), ("issue", "#14")]),
        ("https://github.com/o/r/issues/12#x", [("issue", "github.com/o/r/issues/12")]),
        ("https://gitlab.com/o/r/-/issues/7.", [("issue", "gitlab.com/o/r/-/issues/7")]),
        ("https://github.com/o/r/pull/12 src/issues/3", []),
        ("(https://bugzilla.redhat.com/show_bug.cgi?id=9)", [("issue", "bugzilla.redhat.com/show_bug.cgi?id=9")]),
        ("talos report TALOS-2021-1299, ZDI-CAN-12345", [("report", "TALOS-2021-1299"), ("report", "ZDI-CAN-12345")]),
        ("https://hackerone.com/reports/9.", [("report", "hackerone.com/reports/9")]),
        (
            "https://huntr.dev/bounties/a-b/ crbug.com/5",
            [("issue", "crbug.com/5"), ("report", "huntr.dev/bounties/a-b/")],
        ),
    ],
)
def test_links_to_reports_are_found_where_they_are_asked_for(message: str, wanted: list[tuple[str, str]]) -> None:
    kinds = ("OSV", "OSS-Fuzz", "report", "issue")
    assert [(found.kind, found.value) for found in find_identifiers(message, kinds)] == wanted
    assert find_identifiers(message) == ()


def test_a_keyword_may_have_to_start_a_word() -> None:
    matcher = KeywordMatcher(("fix", "race", "use-after-free"), "start")
    assert matcher.find("prefix trace unfix") == ()
    assert matcher.find("Fixes races, (use-after-frees)") == ("fix", "race", "use-after-free")
