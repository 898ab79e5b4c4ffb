"""Members of the struct that an expression is about, not of another that has one of the same name."""

import functools
import subprocess

import pytest

from trustmine import members
from trustmine.definitions import DefinitionFinder
from trustmine.gitrepo import GitRepo
from trustmine.lines import LineRange

HEADER = """struct other {
  void *data;
  long name;
};
struct host {
  char *name;  /* of the machine */
};
typedef struct list {
  struct list *next;
  char *data;
} list_t;
typedef list_t *lists;
struct opaque;
struct conn {
  struct host host, proxy;
  union {
    struct list ftp;
    struct other http;
  } proto;
  MACRO(int, flag);
};
"""
SOURCE = """#include "all.h"
static int f(struct conn *conn, list_t *v, lists all[2],
             struct opaque *p, int n)
{
  struct other *a, *b;
  struct tm t;
  use(v->data);
  return conn->host.name;
}
"""


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> tuple[DefinitionFinder, str]:
    folder = tmp_path_factory.mktemp("members")
    (folder / "all.h").write_text(HEADER)
    (folder / "f.c").write_text(SOURCE)
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, "commit", "-qm", "all"], cwd=folder, check=True)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return DefinitionFinder(GitRepo.open(folder)), sha.strip()


@pytest.mark.parametrize(
    ("chain", "name", "lines"),
    [
        (("conn", "host"), "name", [6]),
        (("conn", "proxy"), "name", [6]),
        (("v",), "data", [10]),
        (("v", "next"), "data", [10]),
        (("all",), "data", [10]),  # a typedef of a typedef
        (("a",), "name", [3]),
        (("b",), "data", [2]),
        # A union without a name, and a struct in it.
        (("conn", "proto", "http"), "data", [2]),
        (("conn", "proto", "ftp"), "data", [10]),
        # The struct is known by name alone.
        (("p",), "data", []),
        (("t",), "name", []),
        # Open: no declaration, no such member, a type that is none.
        (("global",), "data", None),
        (("conn",), "data", None),
        (("conn", "flag"), "data", None),
        (("n",), "data", None),
    ],
)
def test_the_member_of_what_it_is_taken_from(
    finder: tuple[DefinitionFinder, str], chain: tuple[str, ...], name: str, lines: list[int] | None
) -> None:
    function = SOURCE.split("\n", 1)[1]
    find = functools.partial(
        finder[0].find, kind_hint="type", path="f.c", commit_sha=finder[1], pre_image=SOURCE.encode(), limit=9
    )
    found = members.resolve(name, chain, function, "utf-8", "f.c", lambda owner: find(owner).nearest, finder[0].members)
    assert (None if found is None else [one.first_line for one in found]) == lines


def test_what_a_member_is_taken_from() -> None:
    text = "void f(void)\n{\n  g(a->data, 1);\n  b[2].c->data = x.data.y; /* z->data */\n  h()->data;\n}\n"
    assert members.chains("data", text, "utf-8", "f.c", LineRange(4, 4)) == (("b", "c"), ("x",), ("a",))
    assert members.chains("y", text, "utf-8", "f.c", LineRange(1, 1)) == (("x", "data"),)
