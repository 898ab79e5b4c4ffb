"""A chat as tokens: the model's own template around contents that stay plain text.

The template (Jinja, from the GGUF) is rendered with a marker in place of each
message's content and split at the markers afterwards. So the template's own
text and the contents never mix: control tokens are looked up in the former
only, and whatever a content holds, a control token's spelling included, is
tokenised as text. So nothing in a message can end its own section. Neighbouring
texts are tokenised together, as they would be in the whole string.

Some templates mark their sections with plain words, such as Mistral's first
[INST]: no tokeniser can tell those from the same words in a content, so there
they get a space after their first character. Templates whose sections are
marked by words without brackets (`USER:`) are not protected.

Rendering follows transformers' apply_chat_template, except that strftime_now
always tells the same day: answers must not depend on the clock. And a thought
that the template opens for the answer (DeepSeek-R1's distillations, QwQ and
Qwen3-Thinking do, whatever enable_thinking says) is closed empty: an answer of
labels or by a grammar would else be the beginning of the thought.
"""

import datetime
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trustmine.errors import ModelError
from trustmine.records import Message

# Raise when the same messages would become other tokens for most models: it has every model asked everything again.
VERSION = 2

# The day that Llama 3's template falls back to when it cannot ask for today.
_TODAY = datetime.datetime(2024, 7, 26)
_MARKER = re.compile(r"<<?/?[^<>\s]+>>?|\[/?[A-Z_]+\]")
_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
# As Qwen3's template writes it without thinking. Models that always think answer well behind a thought that says
# nothing: Ma et al. 2025, arXiv 2504.09858.
_EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
_PROBES = (
    (Message("system", "S"), Message("user", "U")),
    (Message("system", "S"), Message("user", "U"), Message("assistant", "A"), Message("user", "V")),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a rendered chat: the template's own text, or a message's content."""

    text: str
    is_content: bool


class _Generation(Extension):
    """The tag {% generation %} of transformers, by which training finds what a model has to learn: renders its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # What is set inside is not seen outside: in transformers the body is a block of its own.
        return nodes.Scope(body, lineno=lineno)


class ChatTemplate:
    """A model's chat template, tried once with a short conversation."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "", where: str = "") -> None:
        """Raises ModelError if the template cannot render a conversation of system, user and assistant."""
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._where = where
        # Options as in transformers: utils/chat_template_utils.py.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation]
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _TODAY.strftime
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise self._unusable(f"{type(error).__name__}: {error}") from error
        # Gemma's refuses the system role, some old ones leave it out silently.
        self._has_system_role = all(self._try(probe) is None for probe in _PROBES)
        if not self._has_system_role:
            for probe in _PROBES:
                why = self._try(without_system(probe))
                if why is not None:
                    raise self._unusable(why)
        #: The template's own text in the probes: what gives a chat its structure.
        self.skeleton = "".join(piece.text for probe in _PROBES for piece in self.render(probe) if not piece.is_content)
        #: Words in brackets in that text; control tokens for most models.
        self.markers = sorted(set(_MARKER.findall(self.skeleton)))

    def render(self, messages: Sequence[Message]) -> tuple[Piece, ...]:
        """The chat up to where the assistant begins to answer. Raises ModelError."""
        told = messages if self._has_system_role else without_system(messages)
        try:
            return self._pieces(told)
        except ValueError as error:
            raise self._unusable(str(error)) from error

    def _try(self, messages: Sequence[Message]) -> str | None:
        """Why the template cannot render these messages; None if it can."""
        try:
            self._pieces(messages)
        except ValueError as error:
            return str(error)
        return None

    def _pieces(self, messages: Sequence[Message]) -> tuple[Piece, ...]:
        # Only markers are rendered, so no content can look like one. No space
        # at the ends: templates may trim.
        markers = [f"content-{place:04d}-of-message" for place in range(len(messages))]
        turns = [{"role": turn.role, "content": marker} for turn, marker in zip(messages, markers, strict=True)]
        try:
            text = self._template.render(
                messages=turns, add_generation_prompt=True, enable_thinking=False, **self._tokens
            )
        except (TemplateError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        text = _OPEN_THOUGHT.sub(_EMPTY_THOUGHT, text)
        contents = {marker: turn.content for turn, marker in zip(messages, markers, strict=True)}
        missing = [marker for marker in markers if marker not in text]
        if missing:
            raise ValueError(f"the message of role {messages[markers.index(missing[0])].role} is left out")
        parts = re.split("(" + "|".join(markers) + ")", text)
        return tuple(Piece(contents.get(part, part), part in contents) for part in parts if part)

    def _unusable(self, why: str) -> ModelError:
        hint = "Choose a GGUF file of an instruction-tuned model with a chat template"
        return ModelError("The model's chat template cannot be used", f"{self._where}: {why}".lstrip(": "), hint)


def tokenise(
    pieces: Sequence[Piece],
    specials: Mapping[str, int],
    structural: Sequence[str],
    textual: Sequence[str],
    tokenise_text: Callable[[str], list[int]],
) -> list[int]:
    """Token ids of a rendered chat.

    `specials` are the spellings of control tokens, looked up in the template's
    text alone. `structural` are spellings that a tokeniser finds even in plain
    text (tokens that a GGUF declares as user-defined) and that the template
    uses: inside contents they are taken apart. `textual` are markers of the
    template that are no tokens: inside contents they get a space.
    `tokenise_text` takes plain text, adding neither BOS nor EOS.
    """
    special = _any_of(list(specials))
    special_ids = set(specials.values())
    apart, spaced = _starts_of(structural), _starts_of(textual)
    ids: list[int] = []
    run: list[str] = []

    def flush() -> None:
        text = "".join(run)
        run.clear()
        if not text:
            return
        found = tokenise_text(text)
        if not special_ids.isdisjoint(found):  # SentencePiece's merges can end at a control token: </ and s> at </s>
            found = [token for part in _parts(text, _starts_of(list(specials))) for token in tokenise_text(part)]
        ids.extend(found)

    for piece in pieces:
        if piece.is_content:
            first, *others = _parts(" ".join(_parts(piece.text, spaced)), apart)
            run.append(first)
            for part in others:
                flush()
                run.append(part)
        else:
            for part in special.split(piece.text) if special else [piece.text]:
                if part in specials:
                    flush()
                    ids.append(specials[part])
                else:
                    run.append(part)
    flush()
    return ids


def tail(pieces: Sequence[Piece], specials: Iterable[str]) -> str:
    """The template's text between the last control token or content and the answer; '' if there is none."""
    if not pieces or pieces[-1].is_content:
        return ""
    special = _any_of(list(specials))
    return special.split(pieces[-1].text)[-1] if special else pieces[-1].text


def _any_of(spellings: Sequence[str]) -> re.Pattern[str] | None:
    """Pattern with one group that finds any of the spellings, the longest first."""
    longest_first = sorted((re.escape(spelling) for spelling in spellings if spelling), key=len, reverse=True)
    return re.compile("(" + "|".join(longest_first) + ")") if longest_first else None


def _starts_of(spellings: Sequence[str]) -> re.Pattern[str] | None:
    """Pattern that finds every place where one of the spellings begins, also inside another."""
    spelled = _any_of(spellings)
    return re.compile(f"(?={spelled.pattern})") if spelled else None


def _parts(text: str, starts: re.Pattern[str] | None) -> list[str]:
    """The text cut after the first character of each spelling, so that no part holds one."""
    cuts = [found.start() + 1 for found in starts.finditer(text)] if starts else []
    return [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The system message put before the first user message."""
    if len(messages) < 2 or messages[0].role != "system":
        return tuple(messages)
    system, user, *rest = messages
    return (Message(user.role, f"{system.content}\n\n{user.content}"), *rest)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
