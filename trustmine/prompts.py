"""Prompts are files: load, fill and hash prompts/NAME.md.

A prompt file is TOML front matter between two `+++` lines (task, description,
max_tokens, optional labels and questions), then one section per chat turn: `# system`,
`# user`, `# assistant`. A file that begins with `# assistant` continues a
conversation: its turns are added to the messages given as `after`, which
stay as they are, so that an engine finds them in its cache.

Slots are filled in one pass, so slot syntax inside inserted text stays text:

    {{name}}           the text as it is
    {{fenced name c}}  the text in a Markdown code fence that nothing in it can
                       close, with an optional info string; alone on its line

`questions` are texts for the slot {{question}}, which is filled with the first
one unless another is given: one prompt that can be asked in several ways.

A file, slot or value that is not as it should be is a PromptError. What
inserted text may do to the model's control tokens is up to the engine.
"""

import hashlib
import itertools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trustmine import resources
from trustmine.errors import PromptError
from trustmine.records import Message, Request

ROLES = ("system", "user", "assistant")
# Parameters of Prompt.request: no slot may have their names.
_RESERVED = frozenset(
    {"self", "after", "labels", "grammar", "schema", "max_tokens", "temperature", "seed", "repeat_penalty"}
)
_FRONT_MATTER = re.compile(r"\A\+\+\+\n(.*?)^\+\+\+\n(.*)\Z", re.DOTALL | re.MULTILINE)
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_SLOT = re.compile(r"(?:(?P<fenced>fenced) )?(?P<name>[a-z][a-z0-9_]*)(?: (?P<info>[A-Za-z0-9_+-]+))?")
_BACKTICKS = re.compile(r"`+")


def fenced(text: str, info: str = "") -> str:
    """The text as a fenced code block whose fence is longer than any run of backticks in it.

    See https://spec.commonmark.org/0.31.2/#fenced-code-blocks
    """
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}{info}\n{text}{end}{fence}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file, checked."""

    name: str
    hash: str  # sha256 of the file's bytes
    task: str
    description: str
    max_tokens: int
    labels: tuple[str, ...]
    turns: tuple[Message, ...]  # with their slots unfilled
    questions: tuple[str, ...] = ()  # what the slot `question` may be filled with

    @property
    def slots(self) -> frozenset[str]:
        """Names of all slots."""
        return frozenset(slot["name"] for turn in self.turns for slot in _slots(turn.content, self.name))

    def request(
        self,
        *,
        after: Sequence[Message] = (),
        labels: Sequence[str] = (),
        grammar: str | None = None,
        schema: str | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        repeat_penalty: float = 1.0,
        seed: int = 0,
        question: str | None = None,
        **slots: str,
    ) -> Request:
        """A Request with every slot filled.

        Labels and max_tokens are the file's unless given, the question is its
        first; with a grammar there are no labels. `after` is the conversation
        so far, for files that begin with `# assistant`. Raises PromptError for
        a slot without a value or a value without a slot.
        """
        if question is not None or self.questions:
            slots["question"] = self.questions[0] if question is None else question
        missing, unused = self.slots - slots.keys(), slots.keys() - self.slots
        if missing:
            raise PromptError(f"Prompt {self.name} has a slot nobody fills", ", ".join(sorted(missing)), _HINT)
        if unused:
            raise PromptError(f"Prompt {self.name} lacks a slot for a value", ", ".join(sorted(unused)), _HINT)
        if bool(after) != (self.turns[0].role == "assistant"):
            what = "begins a conversation" if after else "continues a conversation"
            raise PromptError(f"Prompt {self.name} {what}", f"its first section is # {self.turns[0].role}", _HINT)
        return Request(
            task=self.task,
            prompt_name=self.name,
            prompt_hash=self.hash,
            messages=(*after, *(Message(turn.role, _filled(turn.content, slots)) for turn in self.turns)),
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            labels=() if grammar is not None else tuple(labels) or self.labels,
            grammar=grammar,
            schema=schema,
            temperature=temperature,
            repeat_penalty=repeat_penalty,
            seed=seed,
        )


class Prompts:
    """The prompts of one folder, each read when first asked for."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None: the prompts that come with trustmine."""
        self._folder = resources.prompts_folder() if folder is None else folder
        self._loaded: dict[str, Prompt] = {}

    def get(self, name: str) -> Prompt:
        """The prompt of NAME.md; raises PromptError."""
        if name not in self._loaded:
            path = self._folder / f"{name}.md"
            try:
                content = path.read_bytes()
            except OSError as error:
                raise PromptError(f"Cannot read prompt {name}", f"{path}: {error.strerror}", _HINT) from error
            self._loaded[name] = parse(name, content, str(path))
        return self._loaded[name]

    def hash(self, name: str) -> str:
        """sha256 of the file's bytes; raises PromptError."""
        return self.get(name).hash


_HINT = "A prompt file is front matter between two +++ lines, then # system, # user, # assistant"


def parse(name: str, content: bytes, where: str) -> Prompt:
    """The prompt in a file's bytes; raises PromptError naming `where`."""

    def malformed(why: str) -> PromptError:
        return PromptError(f"Prompt {name} is malformed: {why}", where, _HINT)

    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise malformed(f"not UTF-8 ({error.reason} at byte {error.start})") from error
    parts = _FRONT_MATTER.match(text if text.endswith("\n") else text + "\n")
    if parts is None:
        raise malformed("no front matter between two +++ lines")
    try:
        front = tomllib.loads(parts[1])
    except tomllib.TOMLDecodeError as error:
        raise malformed(f"front matter is not TOML ({error})") from error
    unknown = front.keys() - {"task", "description", "max_tokens", "labels", "questions"}
    if unknown:
        raise malformed(f"unknown key {sorted(unknown)[0]}")
    for key in ("task", "description"):
        if not isinstance(front.get(key), str) or not front[key].strip():
            raise malformed(f"{key} must be a string")
    max_tokens = front.get("max_tokens")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise malformed("max_tokens must be a whole number of at least 1")
    lists = {}
    for key in ("labels", "questions"):
        texts = front.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise malformed(f"{key} must be a list of strings")
        if len(set(texts)) != len(texts):
            raise malformed(f"{key} must differ")
        lists[key] = tuple(texts)
    try:
        turns = _turns(parts[2])
        for turn in turns:
            _slots(turn.content, name)
    except ValueError as error:
        raise malformed(str(error)) from error
    digest = hashlib.sha256(content).hexdigest()
    prompt = Prompt(name, digest, front["task"], front["description"], max_tokens, lists["labels"], turns)
    if bool(lists["questions"]) != ("question" in prompt.slots):
        raise malformed("questions and the slot {{question}} go together")
    return replace(prompt, questions=lists["questions"])


def _turns(body: str) -> tuple[Message, ...]:
    """The sections as turns; raises ValueError with what is wrong."""
    sections: list[tuple[str, list[str]]] = []
    for line in body.split("\n"):
        if line.startswith("# "):
            role = line[2:].strip()
            if role not in ROLES:
                raise ValueError(f"unknown section {line!r} (inside a section use ##)")
            sections.append((role, []))
        elif sections:
            sections[-1][1].append(line)
        elif line.strip():
            raise ValueError("text before the first section")
    turns = tuple(Message(role, "\n".join(lines).strip()) for role, lines in sections)
    if not turns:
        raise ValueError("no section")
    for turn in turns:
        if not turn.content:
            raise ValueError(f"section # {turn.role} is empty")
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise ValueError("# system must be the first section")
    talk = roles[1:] if roles[0] == "system" else roles
    if not talk or talk[-1] != "user":
        raise ValueError("the last section must be # user")
    if (roles[0] == "system" and talk[0] != "user") or any(a == b for a, b in itertools.pairwise(talk)):
        raise ValueError("# user and # assistant must take turns")
    return turns


def _slots(template: str, name: str) -> list[re.Match[str]]:
    """Every slot in the template; raises ValueError with what is wrong."""
    found = []
    for braces in _BRACES.finditer(template):
        slot = _SLOT.fullmatch(braces[1])
        if slot is None or (slot["info"] and not slot["fenced"]):
            raise ValueError(f"{braces[0]!r} is not a slot")
        if slot["name"] in _RESERVED or slot["name"] == "fenced":
            raise ValueError(f"a slot cannot be named {slot['name']}")
        line_start = template.rfind("\n", 0, braces.start()) + 1
        alone = braces.start() == line_start and template[braces.end() : braces.end() + 1] in ("", "\n")
        if slot["fenced"] and not alone:
            raise ValueError(f"{braces[0]!r} must stand alone on its line")
        found.append(slot)
    rest = _BRACES.sub("", template)
    if "{{" in rest or "}}" in rest:
        raise ValueError("a slot is not closed, or {{ or }} stand alone")
    return found


def _filled(template: str, values: dict[str, str]) -> str:
    """The template with its slots replaced, in one pass."""

    def value(braces: re.Match[str]) -> str:
        slot = _SLOT.fullmatch(braces[1])
        assert slot is not None, "checked when the file was loaded"
        text = values[slot["name"]]
        return fenced(text, slot["info"] or "") if slot["fenced"] else text

    return _BRACES.sub(value, template)
