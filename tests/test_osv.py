"""OSV records: read tolerantly, whatever their version, and nothing in a folder stops the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from trustmine import osv
from trustmine.errors import TrustmineError
from trustmine.osv import Advisory, Fix, Malformed

FIXED, INTRODUCED, OTHER = "a1" * 20, "b2" * 20, "1234567890" * 4

OSS_FUZZ = f"""\
id: OSV-2022-1234
summary: Heap-use-after-free in read_bs
modified: '2022-12-04T13:00:21.935497Z'
published: 2022-12-04
references:
- type: REPORT
  url: https://bugs.chromium.org/p/oss-fuzz/issues/detail?id=53971
affected:
- package: {{name: Gpac, ecosystem: OSS-Fuzz}}
  ranges:
  - type: GIT
    repo: https://github.com/gpac/gpac.git
    events:
    - introduced: {INTRODUCED}
    - fixed: {OTHER}
  versions: [v2.2.0]
  ecosystem_specific: {{severity: HIGH}}
schema_version: 1.3.0
"""
GHSA: dict[str, Any] = {
    "schema_version": "1.4.0",
    "id": "GHSA-2222-3333-4444",
    "aliases": ["CVE-2020-1", "no id!"],
    "severity": [
        {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
        {"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L"},
    ],
    "affected": [{"package": {"ecosystem": "npm"}, "ranges": [{"type": "SEMVER", "events": [{"fixed": "1.2"}]}]}],
    "references": [
        {"type": "WEB", "url": f"https://github.com/Curl/curl/commit/{FIXED}"},
        {"type": "WEB", "url": "https://git.example.org/cgit/curl.git/commit/?id=abcdef1234"},
        {"type": "WEB", "url": "https://gitlab.com/a/b/c/-/commit/0123456789abcdef#note"},
        {"type": "EVIDENCE", "url": f"https://github.com/curl/curl/commit/{OTHER}"},
        {"type": "WEB", "url": "https://github.com/curl/curl/pull/1"},
    ],
    "database_specific": {"cwe_ids": ["CWE-787", "CWE-119", "nonsense"], "severity": "CRITICAL"},
}


def ranged(*events: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "id": "CVE-2020-1",
        "affected": [{"ranges": [{"type": "GIT", "repo": "r", "events": list(events), **more}]}],
    }


def only(folder: Path) -> Advisory:
    [found] = osv.read(folder)
    assert isinstance(found, Advisory)
    return found


def test_a_record_of_oss_fuzz_gives_the_bisected_fix_and_what_brought_it_in(tmp_path: Path) -> None:
    (tmp_path / "vulns" / "gpac").mkdir(parents=True)
    (tmp_path / "vulns" / "gpac" / "OSV-2022-1234.yaml").write_text(OSS_FUZZ)
    found = only(tmp_path)
    assert found.fixes == (Fix(OTHER, "github.com/gpac/gpac", "bisected", (INTRODUCED,)),), "digits alone stay text"
    assert (found.source, found.severity, found.packages, found.oss_fuzz) == ("oss-fuzz", "HIGH", ("gpac",), ("53971",))


@pytest.mark.parametrize("place", ["ecosystem_specific", "database_specific"])
def test_a_fix_that_bisection_could_only_narrow_down_is_of_less_worth(place: str) -> None:
    record = ranged({"introduced": "0"}, {"fixed": FIXED}) | {"id": "OSV-2020-1"}
    record["affected"][0][place] = {"fixed_range": f"{OTHER}:{FIXED}"}
    [fix] = osv.advisory(record).fixes
    assert (fix.quality, fix.introduced_by) == ("bisected_range", ())


def test_an_advisory_names_fixes_by_address_weaknesses_and_the_newest_cvss() -> None:
    found = osv.advisory(GHSA)
    assert [(fix.sha, fix.repo, fix.quality) for fix in found.fixes] == [
        (FIXED, "github.com/curl/curl", "advisory"),
        ("abcdef1234", "git.example.org/cgit/curl", "advisory"),
        ("0123456789abcdef", "gitlab.com/a/b/c", "advisory"),
    ]
    assert (found.source, found.aliases, found.cwes) == ("ghsa", ("CVE-2020-1",), ("CWE-787", "CWE-119"))
    assert found.severity == "CVSS:4.0/AV:N/AC:L"


def test_weaknesses_are_found_under_the_names_that_others_give_them() -> None:
    assert osv.advisory({"id": "CURL-1", "database_specific": {"CWE": {"id": "CWE-121", "desc": "x"}}}).cwes == (
        "CWE-121",
    )
    assert osv.advisory({"id": "X-1", "database_specific": {"cwes": [{"cweId": "cwe-79"}], "cwe": "20"}}).cwes == (
        "CWE-79",
        "CWE-20",
    )


def test_an_address_of_the_commit_that_brought_it_in_is_no_fix() -> None:
    record = ranged({"introduced": INTRODUCED}, {"fixed": FIXED})
    record["references"] = [
        {"type": "WEB", "url": f"https://github.com/o/n/commit/{sha[:12]}"} for sha in (INTRODUCED, FIXED)
    ]
    assert [fix.sha for fix in osv.advisory(record).fixes] == [FIXED]


@pytest.mark.parametrize("key", ["versions", "extracted_events"])
def test_a_range_made_from_release_numbers_names_no_fix(key: str) -> None:
    found = osv.advisory(ranged({"introduced": "0"}, {"fixed": FIXED}, database_specific={key: [{"fixed": "8.4.0"}]}))
    assert (found.fixes, found.n_releases) == ((), 1)


@pytest.mark.parametrize(
    "address",
    ["https://github.com/curl/curl", "https://u:p@github.com/curl/curl.git/", "git@github.com:Curl/curl.git",
     "ssh://git@github.com/curl/curl", "git://www.github.com/curl/curl"],
)  # fmt: skip
def test_an_address_of_a_repository_has_one_spelling(address: str) -> None:
    assert osv.repo_key(address).removeprefix("www.") == "github.com/curl/curl"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b"{", "Expecting"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.yaml", b"a: [", "no YAML"),
        ("a.yml", b"just text", "no mapping"),
        ("a.yaml", b"\xff\xfe", "decode"),
        ("a.yaml", b"id: ../../etc/passwd", "no identifier"),
        ("a.json", b'{"id": 7}', "no identifier"),
        ("a.json", b"[{}, 3]", "no identifier"),
    ],
)
def test_what_is_no_record_is_named_and_the_rest_is_read(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.json").write_text(json.dumps([GHSA, GHSA]))
    *odd, first, second = osv.read(tmp_path)
    assert isinstance(odd[0], Malformed) and odd[0].path == name and why in odd[0].why
    assert first == second == osv.advisory(GHSA)


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "a.yaml").write_text(f"id: OSV-1-1\nsummary: !!python/object/apply:os.mkdir [{marker}]\n")
    only(tmp_path)
    assert not marker.exists()


def test_a_record_of_unforeseen_shape_gives_what_can_be_read() -> None:
    odd: dict[str, Any] = {
        "id": "CVE-2020-1", "aliases": "CVE-2020-2", "severity": {"type": 3}, "references": [None, {"url": 3}],
        "affected": [
            3, {"ranges": [{"type": "GIT", "repo": 7, "events": [{"fixed": [FIXED]}, {"fixed": FIXED.upper()}]}]}
        ],
        "database_specific": [], "withdrawn": "null",
    }  # fmt: skip
    found = osv.advisory(odd)
    assert [fix.sha for fix in found.fixes] == [FIXED]
    assert (found.aliases, found.severity, found.is_withdrawn) == ((), None, False)
    assert osv.advisory(odd | {"withdrawn": "2024-01-01T00:00:00Z"}).is_withdrawn


def test_links_and_hidden_folders_are_passed_by_and_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.json").write_text(json.dumps(GHSA))
    (tmp_path / "b.json").symlink_to(tmp_path / ".git" / "a.json")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(TrustmineError, match="no OSV records"):
        list(osv.read(tmp_path))
    with pytest.raises(TrustmineError, match="no such folder"):
        list(osv.read(tmp_path / "none"))
