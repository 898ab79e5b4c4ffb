"""Advisories from a folder of OSV records (https://ossf.github.io/osv-schema/), YAML or JSON.

Takes what is needed of a record, whatever version of the schema it follows:
its identifiers, weaknesses and severity, and the commits that fixed and
introduced the vulnerability. A record that cannot be read is named, never an
error. What a record says about where a fix comes from is kept as its quality:

    advisory        an advisory names the commit, in a git range or by its address
    bisected        OSS-Fuzz found by running tests that the crash is gone from this commit on
    bisected_range  the same, but it could only narrow it down to several commits, of which this is the last

A git range that was made from release numbers names releases, not fixes;
its commits are counted and left out.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from trustmine import cwe
from trustmine.errors import TrustmineError
from trustmine.keywords import find_identifiers

ADVISORY, BISECTED, BISECTED_RANGE = "advisory", "bisected", "bisected_range"
SUFFIXES = (".json", ".yaml", ".yml")
MAX_BYTES = 4 << 20  # of one record; those of Debian with thousands of versions have 1 MB

# Makes nothing but text, lists and mappings: a commit of digits alone stays text too.
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{2,79}")
_SHA = re.compile(r"[0-9a-f]{40}")
# GitHub and Gitea; GitLab; cgit and gitweb; git.kernel.org's short form.
_COMMIT_ADDRESS = re.compile(
    r"https?://(?P<repo>[\w.-]+(?:/[\w.~+-]+){0,8}?)(?:/-)?/(?:commits?|c|patch)/(?:\?(?:h=[^&\s]*&)?id=)?"
    r"(?P<sha>[0-9a-f]{7,40})(?:\.patch|\.diff)?/?(?:[#?].*)?",
    re.IGNORECASE,
)
_CVSS = re.compile(r"CVSS_V([0-9]{1,3})", re.IGNORECASE)
_SEVERITY = re.compile(r"[A-Za-z0-9.:/ _-]{1,200}")


@dataclass(frozen=True, slots=True)
class Fix:
    """A commit that ends the vulnerability."""

    sha: str  # maybe abbreviated, where it comes from an address
    repo: str  # see repo_key
    quality: str
    introduced_by: tuple[str, ...]  # full SHAs of the same range


@dataclass(frozen=True, slots=True)
class Advisory:
    """One record."""

    id: str
    aliases: tuple[str, ...]
    cwes: tuple[str, ...]  # as given, each once
    severity: str | None  # the vector of the newest CVSS, else the word that stands there
    fixes: tuple[Fix, ...]
    repos: tuple[str, ...]  # every repository that it names, see repo_key
    packages: tuple[str, ...]  # lower case
    oss_fuzz: tuple[str, ...]  # numbers of reports
    is_withdrawn: bool
    n_releases: int  # commits left out because they stand for a release

    @property
    def source(self) -> str:
        """The database that it comes from, by its identifier: oss-fuzz, ghsa, cve, curl, ..."""
        prefix = self.id.partition("-")[0].lower()
        return "oss-fuzz" if prefix == "osv" else prefix


@dataclass(frozen=True, slots=True)
class Malformed:
    """A file that holds no record, and why."""

    path: str
    why: str


class _Odd(ValueError):
    """Why something is no record."""


def repo_key(address: str) -> str:
    """A repository's address in one spelling: github.com/curl/curl."""
    address = address.strip().lower()
    if "://" in address:
        parts = urlsplit(address)
        address = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    elif re.match(r"[\w.-]+@[\w.-]+:", address):  # git@host:owner/name
        address = address.partition("@")[2].replace(":", "/", 1)
    return address.rstrip("/").removesuffix(".git").removeprefix("www.")


def repo_names(name: str, url: str | None) -> set[str]:
    """What a repository of the database is known by: its name, and its address if it has one."""
    return {name.lower(), *([repo_key(url)] if url else [])}


def is_one_of(repo: str, names: Collection[str]) -> bool:
    """Whether an address (see repo_key) stands for a repository with these names: its address, or owner/name."""
    return any(repo == name or ("/" in name and repo.endswith(f"/{name}")) for name in names)


def read(folder: Path, progress: Callable[[int], object] = lambda done: None) -> Iterator[Advisory | Malformed]:
    """All records below a folder, in the order of their paths; `progress` is told the files read.

    Raises TrustmineError if there is no such folder or no such file in it.
    """
    if not folder.is_dir():
        raise TrustmineError("There is no such folder", str(folder), "Give a folder of OSV records, as YAML or JSON")
    n_read = 0
    for n_read, path in enumerate(_files(folder), 1):
        yield from _read_file(path, str(path.relative_to(folder)))
        progress(n_read)
    if n_read == 0:
        raise TrustmineError(
            "The folder holds no OSV records", str(folder), f"Their files end in {', '.join(SUFFIXES)}"
        )


def _files(folder: Path) -> Iterator[Path]:
    """Files that may be records; hidden folders and links are passed by."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.lower().endswith(SUFFIXES) and path.is_file() and not path.is_symlink():
                yield path


def _read_file(path: Path, name: str) -> Iterator[Advisory | Malformed]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _Odd(f"more than {MAX_BYTES >> 20} MiB")
        text = content.decode("utf-8-sig")
        found = json.loads(text) if name.lower().endswith(".json") else yaml.load(text, _LOADER)  # noqa: S506
        for one in found if isinstance(found, list) else [found]:
            try:
                yield advisory(one)
            except _Odd as error:
                yield Malformed(name, str(error))
    except yaml.YAMLError as error:
        yield Malformed(name, f"no YAML: {' '.join(str(getattr(error, 'problem', None) or error).split())[:100]}")
    except RecursionError:
        yield Malformed(name, "nested too deeply")
    except (OSError, ValueError) as error:
        yield Malformed(name, str(error)[:100])


def advisory(record: object) -> Advisory:
    """What a parsed record says. Raises ValueError with what is wrong."""
    if not isinstance(record, dict):
        raise _Odd("no mapping")
    own = _text(record, "id")
    if not _ID.fullmatch(own):
        raise _Odd("no identifier")
    affected = _maps(record, "affected")
    places = [record, *affected]
    notes = [_map(place, key) for place in places for key in ("database_specific", "ecosystem_specific")]
    repos: dict[str, None] = {}
    fixes: dict[tuple[str, str], Fix] = {}
    n_releases = 0
    for one in affected:
        for part in _maps(one, "ranges"):
            if _text(part, "type").upper() != "GIT":
                continue
            key, fixed = repo_key(_text(part, "repo")), _events(part, "fixed")
            repos[key] = None
            if _is_of_releases(part):
                n_releases += len(fixed)
                continue
            for sha in fixed:
                fixes.setdefault((key, sha), Fix(sha, key, _quality(own, one), _events(part, "introduced")))
    introduced = tuple(dict.fromkeys(sha for fix in fixes.values() for sha in fix.introduced_by))
    for sha, key in _named_fixes(record):
        repos[key] = None
        if not any(known.startswith(sha) for known in (*introduced, *(known for _, known in fixes))):
            fixes[key, sha] = Fix(sha, key, ADVISORY, introduced)
    packages = (_text(_map(one, "package"), "name").lower() for one in affected)
    addresses = " ".join(_text(one, "url") for one in _maps(record, "references"))
    return Advisory(
        id=own,
        aliases=tuple(dict.fromkeys(a for a in _texts(record, "aliases") if _ID.fullmatch(a) and a != own)),
        cwes=_cwes(notes),
        severity=_severity(places, notes),
        fixes=tuple(fixes.values()),
        repos=tuple(filter(None, repos)),
        packages=tuple(dict.fromkeys(filter(None, packages))),
        oss_fuzz=tuple(one.value for one in find_identifiers(addresses, ("OSS-Fuzz",))),
        is_withdrawn=bool(_text(record, "withdrawn")),
        n_releases=n_releases,
    )


def _events(part: dict[Any, Any], kind: str) -> tuple[str, ...]:
    """Full SHAs of the events of this kind; `introduced: 0` is none."""
    found = (_text(event, kind).lower() for event in _maps(part, "events"))
    return tuple(dict.fromkeys(sha for sha in found if _SHA.fullmatch(sha)))


def _is_of_releases(part: dict[Any, Any]) -> bool:
    """Whether OSV made the range from release numbers of NVD or of an advisory: it keeps them beside it."""
    notes = _map(part, "database_specific")
    return any("fixed" in event for key in ("versions", "extracted_events") for event in _maps(notes, key))


def _quality(own: str, affected: dict[Any, Any]) -> str:
    if not own.startswith("OSV-"):
        return ADVISORY
    spans = [_text(_map(affected, key), "fixed_range") for key in ("database_specific", "ecosystem_specific")]
    return BISECTED_RANGE if any(spans) else BISECTED


def _named_fixes(record: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """(SHA, repository) of commits whose address the record gives for a fix, or without saying what for."""
    for one in _maps(record, "references"):
        found = _COMMIT_ADDRESS.fullmatch(_text(one, "url"))
        if found is not None and _text(one, "type").upper() in ("FIX", "WEB", ""):
            yield found["sha"].lower(), repo_key(found["repo"])


def _cwes(notes: list[dict[Any, Any]]) -> tuple[str, ...]:
    """From `cwe_ids` of GitHub, or what others call it: a text, a mapping with an id, or a list of these."""
    found: dict[str, None] = {}
    for note in notes:
        for key in note:
            if str(key).lower() not in ("cwe_ids", "cwes", "cwe"):
                continue
            for one in note[key] if isinstance(note[key], list) else [note[key]]:
                text = _text(one, "id") or _text(one, "cweId") if isinstance(one, dict) else one
                read = cwe.read(text) if isinstance(text, str) else None
                found |= {read: None} if read else {}
    return tuple(found)


def _severity(places: list[dict[Any, Any]], notes: list[dict[Any, Any]]) -> str | None:
    scored = [
        (int(version[1]), _text(one, "score"))
        for place in places
        for one in _maps(place, "severity")
        if (version := _CVSS.fullmatch(_text(one, "type")))
    ]
    best = max(scored, key=lambda one: one[0])[1] if scored else ""
    given = [best, *(_text(note, "severity") for note in notes)]
    return next((one for one in given if _SEVERITY.fullmatch(one)), None)


# ------------------------------------------------- parts of a record of whatever shape


def _map(holder: object, key: str) -> dict[Any, Any]:
    found = holder.get(key) if isinstance(holder, dict) else None
    return found if isinstance(found, dict) else {}


def _maps(holder: object, key: str) -> list[dict[Any, Any]]:
    found = holder.get(key) if isinstance(holder, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _texts(holder: object, key: str) -> list[str]:
    found = holder.get(key) if isinstance(holder, dict) else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _text(holder: object, key: str) -> str:
    found = holder.get(key) if isinstance(holder, dict) else None
    text = found.strip() if isinstance(found, str) else ""
    return "" if text in ("null", "~") else text  # YAML's nothing, read as text
