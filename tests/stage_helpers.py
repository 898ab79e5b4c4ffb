"""A worked example and the parts that stages need: facts in memory, completions by hand."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from trustmine import calibration
from trustmine.config import Settings
from trustmine.prompts import Prompts
from trustmine.records import (
    Commit,
    Completion,
    ContextItem,
    Diff,
    Element,
    Explanation,
    Fact,
    FunctionPair,
    Label,
    Mask,
    MaskedFunction,
    MergedMask,
    Outcome,
    Request,
    Segment,
)
from trustmine.stages.base import Asking, Context

F = TypeVar("F", bound=Fact)

HEADER = """\
#ifndef RECORD_H
#define RECORD_H

#include <stddef.h>

#define HEADER_SIZE 4
#define NAME_SIZE 32

enum record_error { RECORD_OK, RECORD_SHORT, RECORD_BAD };

struct record {
    unsigned id;
    char name[NAME_SIZE];
};

int record_parse(struct record *out, const unsigned char *data, size_t size);

#endif
"""
PRE_FUNCTION = """\
int record_parse(struct record *out, const unsigned char *data, size_t size)
{
    size_t name_len;

    if (size < HEADER_SIZE)
        return RECORD_SHORT;
    out->id = read_u16(data);
    name_len = read_u16(data + 2);
    memcpy(out->name, data + HEADER_SIZE, name_len);
    out->name[name_len] = '\\0';
    return RECORD_OK;
}
"""
POST_FUNCTION = PRE_FUNCTION.replace(
    "    memcpy(out->name, data + HEADER_SIZE, name_len);\n",
    """\
    if (name_len >= sizeof(out->name) || name_len > size - HEADER_SIZE)
        return RECORD_BAD;
    memcpy(out->name, &data[HEADER_SIZE], name_len);
""",
)
TOP = """\
#include <string.h>
#include "record.h"

static size_t read_u16(const unsigned char *p)
{
    return (size_t)p[0] << 8 | p[1];
}

"""
PRE_FILE, POST_FILE = TOP + PRE_FUNCTION, TOP + POST_FUNCTION
PATH, HEADER_PATH = "src/record.c", "src/record.h"
MESSAGE = "record: do not trust the length of the name\n\nA crafted record overflowed the buffer of the name.\n"
PATCH = """\
diff --git a/src/record.c b/src/record.c
--- a/src/record.c
+++ b/src/record.c
@@ -14,7 +14,9 @@ int record_parse(struct record *out, const unsigned char *data, size_t size)
         return RECORD_SHORT;
     out->id = read_u16(data);
     name_len = read_u16(data + 2);
-    memcpy(out->name, data + HEADER_SIZE, name_len);
+    if (name_len >= sizeof(out->name) || name_len > size - HEADER_SIZE)
+        return RECORD_BAD;
+    memcpy(out->name, &data[HEADER_SIZE], name_len);
     out->name[name_len] = '\\0';
     return RECORD_OK;
 }
"""


def blob(text: str) -> str:
    content = text.encode()
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


FUNCTION = FunctionPair(
    name="record_parse",
    path=PATH,
    old_path=PATH,
    split="train",
    pre_oid=blob(PRE_FILE),
    post_oid=blob(POST_FILE),
    encoding="utf-8",
    hunk=PATCH[PATCH.index("@@") :],
    pre_first_line=9,
    pre_last_line=20,
    post_first_line=9,
    post_last_line=22,
    pre_text=PRE_FUNCTION,
    post_text=POST_FUNCTION,
    deleted_lines=(9,),
    added_lines=(9, 10, 11),
    fix_lines=(9,),
    n_tokens=120,
)
# A fix that gives the function another name as well.
RENAMED = dataclasses.replace(
    FUNCTION,
    name="record_parse_bounded",
    post_text=POST_FUNCTION.replace("record_parse(", "record_parse_bounded("),
    deleted_lines=(1, 9),
    added_lines=(1, 9, 10, 11),
    fix_lines=(1, 9),
)
REMOVED = "    memcpy(out->name, data + HEADER_SIZE, name_len);\n"
FIXED = "".join(line + "\n" for line in POST_FUNCTION.split("\n")[8:11])
MASK = Mask(mask_no=1, first_line=9, last_line=9, removed=REMOVED, n_fix_lines=1)
MASKED = MaskedFunction(
    masked_pre=PRE_FUNCTION.replace(REMOVED, "    <MASK_1>\n"), n_fix_lines_missed=0, request_hash="m"
)
MERGED = MergedMask(
    masked_post=POST_FUNCTION.replace(FIXED, "    <MASK_1>\n"), fixed=FIXED, post_first_line=9, post_last_line=11
)
DIFF = Diff(patch=PATCH, encoding="utf-8", n_chars=len(PATCH))
READ_U16 = "".join(line + "\n" for line in TOP.split("\n")[3:7])
RECORD = "".join(line + "\n" for line in HEADER.split("\n")[10:14])


def element(name: str, kind: str, definition: str | None = None, **more: Any) -> Element:
    """An element of the snippet before; defined at line 4 of a header where a definition is given."""
    n_lines = 0 if definition is None else definition.removesuffix("\n").count("\n") + 1
    values: dict[str, Any] = {
        "found_by": "both",
        "in_pre": True,
        "in_post": True,
        "n_candidates": 0 if definition is None else 1,
        "chosen_by": None if definition is None else "parser",
        "def_path": None if definition is None else HEADER_PATH,
        "def_first_line": None if definition is None else 4,
        "def_last_line": None if definition is None else 3 + n_lines,
        "definition": definition,
        "missing": "not_found" if definition is None else None,
    }
    return Element(name=name, kind=kind, **(values | more))


def item(name: str, item_no: int, n_chars: int, reason: str | None = None) -> ContextItem:
    return ContextItem(
        name=name, item_no=item_no, is_kept=reason is None, reason=reason, n_chars=n_chars, n_tokens=n_chars // 4
    )


ELEMENTS = (
    element("read_u16", "function", READ_U16, def_path=PATH),
    element("record", "struct", RECORD, def_first_line=11, def_last_line=14),
)
ITEMS = (item("record", 1, len(RECORD)), item("read_u16", 2, len(READ_U16)))
SEGMENT = Segment(
    segment_no=1,
    first_line=9,
    last_line=9,
    snippet=REMOVED,
    n_fix_lines=1,
    finding="The length of the name is not checked before it is copied.",
    request_hash="s",
)
EXPLANATION = Explanation(
    id=701,
    segment_no=1,
    root_cause="`name_len` is read from `data` and never compared with the size of `name`.",
    impact="Whoever controls `data` writes past the end of `name`.",
    cwe="CWE-787",
    n_asked=1,
    request_hash="e",
)


def commit(sha: str = "0" * 40, **more: Any) -> Commit:
    values: dict[str, Any] = {
        "id": 7,
        "repo_id": 1,
        "sha": sha,
        "parents": ("1" * 40,),
        "author_time_s": 1_500_000_000,
        "commit_time_s": 1_500_000_000,
        "is_boundary": False,
        "message": MESSAGE,
        "status": "s1_1",
    }
    return Commit(**(values | more))


class MemoryFacts:
    """Facts of one commit."""

    _KEYS = ("name", "mask_no", "segment_no", "file_no", "value", "example_no")

    def __init__(self, *facts: Fact) -> None:
        self.stored: list[Fact] = list(facts)

    def add(self, facts: Iterable[Fact]) -> None:
        self.stored.extend(facts)

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        found = [stored for stored in self.stored if isinstance(stored, fact)]
        key = next((name for name in self._KEYS if name in fact.__dataclass_fields__), None)
        return tuple(sorted(found, key=lambda one: getattr(one, key)) if key else found)

    def one(self, fact: type[F], commit: Commit) -> F:
        found = self.all(fact, commit)
        if len(found) != 1:
            raise LookupError(f"{len(found)} {fact.TABLE}")
        return found[0]

    def shared(self, fact: type[F], *key: str) -> F:
        found = self.find_shared(fact, *key)
        assert found is not None
        return found

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        names = [field.name for field in dataclasses.fields(fact)][: len(key)]
        of_kind = (stored for stored in self.stored if isinstance(stored, fact))
        return next((one for one in of_kind if tuple(getattr(one, name) for name in names) == key), None)

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        return ()


def context(*facts: Fact, repos: Any = None, keywords: Any = None, **settings: Any) -> Context:
    return Context(
        settings=Settings(**settings),
        facts=MemoryFacts(*facts),
        repos=repos,
        prompts=Prompts(),
        keywords=keywords,
    )


def completion(text: str, finish_reason: str = "stop") -> Completion:
    return Completion(
        text=text,
        finish_reason=finish_reason,
        label_logprobs=None,
        n_prompt=1,
        n_cached=0,
        n_completion=1,
        duration_ms=1.0,
        request_hash=hashlib.sha256(text.encode()).hexdigest(),
        rendered_hash="r",
    )


def judgement(yes: float, no: float, cannot_decide: float) -> Completion:
    """The probabilities of labels as a small model gives them: most with a capital letter."""
    p = {calibration.YES: yes, calibration.NO: no, calibration.CANNOT_DECIDE: cannot_decide}
    logprobs = {
        text: math.log(p[label] * (0.8 if text[0].isupper() else 0.2)) for text, label in calibration.SPELLINGS.items()
    }
    likeliest = max(logprobs, key=logprobs.__getitem__)
    return dataclasses.replace(completion(likeliest, "label"), label_logprobs=logprobs)


Answer = str | Completion


def ask(asking: Asking, answer: Callable[[Request], Answer]) -> tuple[Outcome, list[Request]]:
    """The stage's outcome, and what it asked on the way."""
    requests = []
    try:
        request = next(asking)
        while True:
            requests.append(request)
            given = answer(request)
            request = asking.send(completion(given) if isinstance(given, str) else given)
    except StopIteration as end:
        return end.value, requests


def say(asking: Asking, *texts: Answer) -> tuple[Outcome, list[Request]]:
    """The stage's outcome where the model says these texts in turn; all of them must have been asked for."""
    left = list(texts)
    outcome, requests = ask(asking, lambda request: left.pop(0))
    assert not left, "the stage asked less often"
    return outcome, requests
