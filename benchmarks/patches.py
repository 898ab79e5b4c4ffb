"""Are stored patches and matched keywords those of git, commit for commit?

    python benchmarks/patches.py REPO [--commits 5000] [--seed 1]

Patches: of randomly chosen commits that are no merges (all that are roots, or
have a submodule or a mode change among them count like others), the patch of
GitRepo against `git show --format= SHA` with no configuration, byte for byte.
Keywords: the commits that each default keyword matches, against
`git log -i -F --grep=KEYWORD` over the whole history. Differences are listed;
the exit code is 1 if there are any but this one: git stops reading a message
at a NUL, trustmine does not.
"""

import argparse
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import ROOT, machine, table

sys.path.insert(0, str(ROOT))
from trustmine import text
from trustmine.config import KEYWORDS
from trustmine.gitrepo import GitRepo
from trustmine.keywords import KeywordMatcher

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C.UTF-8",
}
BATCH = 100  # commits of one `git show`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--commits", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    repo = GitRepo.open(args.repo)
    headers = {header.sha: header for header in repo.walk([repo.resolve("HEAD")], [])}
    single = sorted(sha for sha, header in headers.items() if len(header.parents) < 2)
    chosen = random.Random(args.seed).sample(single, min(args.commits, len(single)))
    differ, n_files, n_kinds = _patches(args.repo, repo, chosen)

    matcher = KeywordMatcher(KEYWORDS, "substring")
    ours: dict[str, set[str]] = {keyword: set() for keyword in KEYWORDS}
    for sha, header in headers.items():
        for keyword in matcher.find(header.message):
            ours[keyword].add(sha)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        theirs = dict(zip(KEYWORDS, pool.map(lambda word: _grep(args.repo, word), KEYWORDS), strict=True))
    unlike = {(word, sha) for word in KEYWORDS for sha in ours[word] ^ theirs[word]}
    behind_nul = {(word, sha) for word, sha in unlike if "\0" in headers[sha].message and sha in ours[word]}

    print(f"{machine()}; {args.repo.name}\n")
    rows = [
        ("patches", f"git show, {len(chosen):,} commits, {n_files:,} files", len(differ)),
        ("keywords", f"git log -i -F --grep, {len(KEYWORDS)} keywords, {len(headers):,} commits", len(unlike)),
        ("of these, keyword behind a NUL", "", len(behind_nul)),
    ]
    print(table(("what", "compared with", "differ"), rows))
    print(table(("kind of change", "files"), sorted(n_kinds.items())))
    for sha in differ:
        print("patch differs:", sha)
    for word, sha in sorted(unlike - behind_nul):
        print("keyword differs:", word, sha)
    sys.exit(1 if differ or unlike - behind_nul else 0)


def _patches(path: Path, repo: GitRepo, shas: list[str]) -> tuple[list[str], int, dict[str, int]]:
    """Commits whose patches differ, and how many files of which kinds were looked at."""
    differ: list[str] = []
    kinds: dict[str, int] = {}
    for start in range(0, len(shas), BATCH):
        batch = shas[start : start + BATCH]
        command = ["git", "-C", str(path), "show", "--format=%x00%H", *batch]
        shown = subprocess.run(command, env=ENV, capture_output=True, check=True).stdout
        wanted = _split(shown, batch)
        repo.expect(batch)
        for sha in batch:
            patch = repo.patch(sha, sys.maxsize)
            assert patch.text is not None
            if text.encode(patch.text, patch.encoding) != wanted[sha]:
                differ.append(sha)
            for file in patch.files:
                for kind in _kinds(file.change, file.is_binary, file.is_submodule):
                    kinds[kind] = kinds.get(kind, 0) + 1
    return differ, sum(n for kind, n in kinds.items() if kind not in ("binary", "submodule")), kinds


def _kinds(change: str, is_binary: bool, is_submodule: bool) -> list[str]:
    return [change, *(["binary"] if is_binary else []), *(["submodule"] if is_submodule else [])]


def _split(shown: bytes, shas: list[str]) -> dict[str, bytes]:
    """The patch of each commit in the output of one `git show`."""
    found: dict[str, bytes] = {}
    at = 0
    for sha, after in zip(shas, [*shas[1:], ""], strict=True):
        head = b"\0" + sha.encode() + b"\n"
        assert shown.startswith(head, at)
        # A patch may hold NUL, but not one before the name of the commit that comes next.
        end = shown.find(b"\n\0" + after.encode() + b"\n", at) + 1 if after else len(shown)
        body = shown[at + len(head) : end]
        found[sha] = body.removeprefix(b"\n")  # git sets header and patch apart
        at = end
    return found


def _grep(path: Path, keyword: str) -> set[str]:
    command = ["git", "-C", str(path), "log", "-i", "-F", "--format=%H", f"--grep={keyword}", "HEAD"]
    return set(subprocess.run(command, env=ENV, capture_output=True, check=True, text=True).stdout.split())


if __name__ == "__main__":
    main()
