"""Checks of what `trustmine benign` stored: the functions, their examples, and the lifespans behind them.

Damage is mended by dropping it: the next run of `trustmine benign` makes it anew.
"""

import json
import re
from collections.abc import Iterator

from trustmine import tokens, tools
from trustmine.benignexample import TASK
from trustmine.errors import RepositoryError
from trustmine.gitrepo import MissingObject
from trustmine.lines import LineRange, cut_lines, split_lines
from trustmine.text import encode
from trustmine.verify.again import NO_REPOSITORY
from trustmine.verify.base import Finding, Look, Statement

_BODY = re.compile(r"[0-9a-f]{32}")
_EXAMPLE = f"DELETE FROM instructions WHERE commit_id = ? AND task = '{TASK}' AND example_no = ?"
_FUNCTION = "DELETE FROM benign_functions WHERE since_commit_id = ? AND example_no = ?"


def functions(look: Look) -> Iterator[Finding]:
    """A benign function has the commit, the length and the one example that are stored with it."""
    for commit_id, number, name, lines, n_tokens, text, meta, is_as_its_commit, is_in_split in look.rows(
        f"""SELECT b.since_commit_id, b.example_no, b.name, json_array(b.first_line, b.last_line), b.n_tokens, b.text,
                   i.meta, c.repo_id IS b.repo_id AND c.commit_time_s IS b.since_time_s, i.split IS b.split
            FROM benign_functions AS b LEFT JOIN commits AS c ON c.id = b.since_commit_id
            LEFT JOIN instructions AS i
                ON i.commit_id = b.since_commit_id AND i.task = '{TASK}' AND i.example_no = b.example_no"""
    ):
        first, last = json.loads(lines)
        if meta is None:
            what = "its example is not there"
        elif not is_as_its_commit:
            what = "repository or time is not that of its commit"
        elif not is_in_split:
            what = "its example is in another split"
        elif (said := json.loads(meta)).get("function") != name or said.get("lines") != [first, last]:
            what = "its example is of another function"
        elif len(split_lines(text)) != last - first + 1 or tokens.count(text) != n_tokens:
            what = "the text is not as long as it says"
        else:
            continue
        yield Finding(None, f"benign function {name}: {what}", mend=_both(commit_id, number))
    for commit_id, number in look.rows(
        f"""SELECT commit_id, example_no FROM instructions AS i WHERE task = '{TASK}' AND NOT EXISTS (
                SELECT 1 FROM benign_functions AS b
                WHERE b.since_commit_id = i.commit_id AND b.example_no = i.example_no)"""
    ):
        yield Finding(None, f"benign example {number} of a function that is not there", mend=_both(commit_id, number))


def again(look: Look) -> Iterator[Finding]:
    """The text of a benign function is the lines of the git blob that it names."""
    repos = tools.Repos(look.conn)
    for repo_id, commit_id, number, name, oid, first, last, encoding, text in look.rows(
        """SELECT repo_id, since_commit_id, example_no, name, oid, first_line, last_line, encoding, text
           FROM benign_functions"""
    ):
        try:
            blob = repos.get(repo_id).blob(oid)
        except (RepositoryError, MissingObject):
            look.skip(NO_REPOSITORY)
            continue
        lines = LineRange(first, last)
        if not 1 <= first <= last <= len(split_lines(blob)) or cut_lines(blob, lines) != encode(text, encoding):
            what = f"benign function {name}: not lines {first}-{last} of blob {oid[:12]}"
            yield Finding(None, what, mend=_both(commit_id, number))


def _both(commit_id: int, example_no: int) -> tuple[Statement, ...]:
    """Neither a function without its example nor the other way round."""
    return ((_EXAMPLE, (commit_id, example_no)), (_FUNCTION, (commit_id, example_no)))


def lifespans(look: Look) -> Iterator[Finding]:
    """The lifespans of a file's functions can be read, are in their order, and name commits that are there."""
    for repo_id, tree, path, content in look.rows("SELECT repo_id, tree_sha, path, functions FROM file_lifespans"):
        named, is_sound, line = {tree}, True, 0
        try:
            for one in json.loads(content):
                is_sound &= line < one["last_line"] and one["first_line"] <= one["last_line"]
                is_sound &= one["touched"][-1] == one["since"] and one["n_changes"] >= len(one["touched"]) - 1
                is_sound &= one["n_tokens"] > 0 and _BODY.fullmatch(one["body"]) is not None and bool(one["name"])
                named.update(one["touched"])
                line = one["first_line"]
        except (LookupError, TypeError, ValueError):
            is_sound = False
        (n_there,) = look.conn.execute(
            "SELECT count(*) FROM commits WHERE repo_id = ? AND sha IN (SELECT value FROM json_each(?))",
            (repo_id, json.dumps(sorted(named, key=repr))),
        ).fetchone()
        if not is_sound or n_there != len(named):
            drop = "DELETE FROM file_lifespans WHERE repo_id = ? AND tree_sha = ? AND path = ?"
            yield Finding(None, f"lifespans of {path!r} are damaged", mend=((drop, (repo_id, tree, path)),))
