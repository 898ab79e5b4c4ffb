"""One OpenAI-compatible server by HTTP: JSON goes in, JSON comes out.

- The key goes into one header of requests to this address and nowhere else:
  redirects are errors and not followed, the key is cut out of whatever the
  server says, and no message holds it.
- A server that is busy (429) or down (5xx, no connection) is asked again, ever
  more seldom (exponential back-off with jitter) or when Retry-After says, until
  nothing has been answered for `patience_s`. Waiting of some seconds is told
  to the logger `trustmine.llm.server`, whose warnings reach stderr.
- An answer that is no JSON, too large or too late is an error with a reason. So is an internal error (500) that comes
  to one request again and again while others are answered.

All of it runs in one event loop; who owns that is left to others.
"""

import asyncio
import email.utils
import json
import logging
import os
import random
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from trustmine import __version__
from trustmine.errors import ModelError

MAX_BODY_BYTES = 16 << 20  # an answer with 500 candidates for one token has 0.1 MB
CONNECT_S = 10.0
MAX_INTERNAL_ERRORS = 5  # that one request may meet while others are answered
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between tries; each is cut by up to a half at random
TELL_AFTER_S, TELL_EVERY_S = 3.0, 60.0  # what is over sooner is not worth a word
# Shorter keys are placeholders ("EMPTY", "none"): cutting them out would garble plain text.
MIN_SECRET_CHARS = 8
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})

# How servers say that a prompt is too long. llama-server: "request (5031 tokens) exceeds the available context size
# (2048 tokens)", type exceed_context_size_error. vLLM: "This model's maximum context length is 4096 tokens. However,
# you requested 500 output tokens and your prompt contains at least 3597 input tokens", "(4500 in the messages, 500 in
# the completion)", "The decoder prompt (length 5000) is longer than the maximum model length of 4096". OpenAI's code
# is context_length_exceeded. llama-cpp-python: "Requested tokens (5031) exceed context window of 2048". SGLang: "The
# input (5000 tokens) is longer than the model's context length (4096 tokens)".
_TOO_LONG = re.compile(
    r"exceed_context_size_error|context_length_exceeded|maximum (?:context|model) length|exceeds? (?:the )?"
    r"(?:available |model's )?(?:maximum )?context|longer than the (?:model's|maximum) |max context size",
    re.IGNORECASE,
)
_N_PROMPT = (
    re.compile(r"(\d+) in the (?:messages|prompt)"),
    re.compile(r"(\d+) input tokens"),
    re.compile(r"resulted in (\d+)"),
    re.compile(r"(?:request|input|tokens|length) \(?(\d+)"),
)

_log = logging.getLogger("trustmine.llm.server")


class Refused(Exception):
    """The server does not take a request: its status and words."""

    def __init__(self, status: int, words: str, is_too_long: bool, n_prompt: int) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status
        self.words = words
        self.is_too_long = is_too_long  # the prompt does not fit in the context
        self.n_prompt = n_prompt  # its tokens; 0 if that is not said


class Garbled(ModelError):
    """An answer that is none."""


@dataclass(slots=True)
class _Trouble:
    """A server that does not answer at present, as all requests see it."""

    since_s: float | None = None
    told_s: float | None = None


@dataclass(slots=True)
class Server:
    """See the module docstring; made by `connect`."""

    url: str  # without a slash at the end
    client: httpx.AsyncClient
    gate: asyncio.Semaphore
    timeout_s: float
    patience_s: float
    secret: str = field(repr=False)
    _trouble: _Trouble = field(default_factory=_Trouble)
    _n_answered: int = 0

    async def get(self, path: str) -> Any:
        """The JSON value at a path below the address. Raises Refused, ModelError."""
        return await self._ask("GET", self.url + path, None, is_probe=True)

    async def look(self, path: str) -> Mapping[str, Any]:
        """The JSON object at a path beside the API, where a server may tell of itself; empty if it does not."""
        try:
            async with self.gate:
                status, _, content = await self._exchange("GET", self.url.removesuffix("/v1") + path, None)
            found = json.loads(content) if status == 200 else None
        except (TimeoutError, httpx.TransportError, ModelError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    async def chat(self, body: Mapping[str, object], *, is_probe: bool = False) -> dict[str, Any]:
        """The answer to a chat completion. Raises Refused, ModelError.

        `is_probe`: whether the server can do this is not known yet, so that an
        internal error is taken for a refusal, and an unknown host for a typo.
        """
        answer = await self._ask("POST", f"{self.url}/chat/completions", body, is_probe=is_probe)
        if not isinstance(answer, dict):
            raise self.garbage("is no JSON object", repr(answer))
        return answer

    @property
    def key_hint(self) -> str:
        """What to do when the key is refused."""
        if self.secret:
            return "Check the key in the environment variable that --api-key-env names"
        return "It wants a key: put it into an environment variable and name that with --api-key-env"

    def garbage(self, why: str, said: str) -> Garbled:
        """The error for an answer that is none."""
        hint = "Check that the address is that of an OpenAI-compatible server; most end in /v1"
        return Garbled(f"The endpoint's answer {why}", f"{self.url}: {self.shown(said)}", hint)

    def shown(self, said: str) -> str:
        """Words of the server for an error: one short line of printable text, without the key."""
        line = " ".join(self.clean(said).split())
        return "".join(c if c.isprintable() else "?" for c in line[:300]) or "(nothing)"

    def clean(self, text: str) -> str:
        """Text of the server that can be stored: valid Unicode, without the key."""
        valid = text.encode("utf-8", "replace").decode("utf-8")
        return valid.replace(self.secret, "[key]") if len(self.secret) >= MIN_SECRET_CHARS else valid

    async def _ask(self, method: str, url: str, body: object, *, is_probe: bool) -> Any:
        """Asks until there is an answer or patience is over."""
        n_tries = n_internal = 0
        n_answered = self._n_answered
        while True:
            try:
                async with self.gate:
                    status, headers, content = await self._exchange(method, url, body)
            except (TimeoutError, httpx.TransportError) as error:
                self._raise_if_hopeless(error, is_probe)
                reason, wanted_s = _reason(error, self.timeout_s), None
            else:
                if 200 <= status < 300:
                    self._tell_of_answer()
                    return self._json(content)
                refused = self._refusal(status, headers, content, url, is_probe)
                n_internal += status == 500
                is_its_own = n_internal >= MAX_INTERNAL_ERRORS and self._n_answered > n_answered
                if refused.is_too_long or status not in _BUSY or (status == 500 and (is_probe or is_its_own)):
                    raise refused
                reason, wanted_s = self.shown(str(refused)), _retry_after_s(headers.get("retry-after"))
            wait_s = min(FIRST_WAIT_S * 2**n_tries, LONGEST_WAIT_S) * random.uniform(0.5, 1)  # noqa: S311
            n_tries += 1
            if wanted_s is not None:
                wait_s = wanted_s + wait_s / 10
            await self._wait(reason, wait_s)

    async def _wait(self, reason: str, wait_s: float) -> None:
        """Waits, tells of it, or gives up: when no request at all has been answered for too long."""
        now, trouble = _now(), self._trouble
        if trouble.since_s is None:
            trouble.since_s = now
        lasts_s = now - trouble.since_s
        if lasts_s + wait_s > self.patience_s:
            where = f"{self.url}: no answer for {lasts_s:.0f} s, and the next try would be in {wait_s:.0f} s"
            hint = "Run it again when the server is there, or set endpoint_patience_s and endpoint_concurrency"
            raise ModelError(f"The endpoint does not answer: {reason}", where if self.patience_s else self.url, hint)
        is_long = lasts_s > TELL_AFTER_S or wait_s > LONGEST_WAIT_S
        if is_long and (trouble.told_s is None or now - trouble.told_s > TELL_EVERY_S):
            trouble.told_s = now
            _log.warning("%s does not answer (%s); trying for up to %.0f s", self.url, reason, self.patience_s)
        await asyncio.sleep(wait_s)

    def _tell_of_answer(self) -> None:
        if self._trouble.told_s is not None:
            _log.warning("%s answers again", self.url)
        self._trouble = _Trouble()
        self._n_answered += 1

    async def _exchange(self, method: str, url: str, body: object) -> tuple[int, httpx.Headers, bytes]:
        """One request and its answer. Raises TimeoutError, httpx.TransportError, ModelError."""
        content = None if body is None else json.dumps(body).encode("ascii")
        async with (
            asyncio.timeout(self.timeout_s),
            self.client.stream(method, url, content=content) as response,
        ):
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > MAX_BODY_BYTES:
                    raise self.garbage(f"is larger than {MAX_BODY_BYTES >> 20} MiB", "cut off")
            return response.status_code, response.headers, bytes(received)

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self.garbage("is not JSON", content.decode("utf-8", "replace")) from error

    def _refusal(self, status: int, headers: httpx.Headers, content: bytes, url: str, is_probe: bool) -> Refused:
        """What a status other than 2xx means; raises ModelError for what no other request would change."""
        text = content[:100_000].decode("utf-8", "replace")
        words, details = _words(text)
        said = self.shown(words)
        if 300 <= status < 400:
            # Without query and password: they may be secrets.
            target = re.sub(r"[?#].*|(?<=//)[^/]*@", "", headers.get("location", ""))
            hint = "Redirects are not followed, so that the key stays here: give the right address with --endpoint"
            raise ModelError(f"The endpoint redirects ({status})", f"{url} to {self.shown(target)}", hint)
        # Once the key was good enough, a firewall may be what forbids a request, for what stands in it.
        if status == 401 or (status == 403 and is_probe):
            raise ModelError(f"The endpoint refuses the key ({status})", f"{self.url}: {said}", self.key_hint)
        is_too_long = bool(_TOO_LONG.search(text))
        n_prompt = details.get("n_prompt_tokens")
        if not isinstance(n_prompt, int):
            found = next(filter(None, (pattern.search(words) for pattern in _N_PROMPT)), None)
            n_prompt = int(found[1][:9]) if found is not None else 0
        return Refused(status, said, is_too_long, n_prompt)

    def _raise_if_hopeless(self, error: Exception, is_probe: bool) -> None:
        """Raises ModelError if trying again is of no use."""
        for cause in _causes(error):
            if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                hint = "For a certificate of your own, set SSL_CERT_FILE to the authority's"
                raise ModelError("The endpoint's certificate is not trusted", self.url, hint) from error
            if is_probe and isinstance(cause, socket.gaierror):
                raise ModelError("The endpoint's host is not known", self.url, "Check --endpoint") from error


def connect(url: str, key: str, *, concurrency: int, timeout_s: float, patience_s: float) -> Server:
    """A server at an address; nothing is sent yet. Raises ModelError."""
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that a small body cannot become a large one
        "Content-Type": "application/json",
        "User-Agent": f"trustmine/{__version__}",
    }
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        httpx.URL(url)
        client = httpx.AsyncClient(
            headers=headers,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_S),  # the whole exchange has its own limit
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:  # ImportError: a proxy that speaks SOCKS
        hint = "Check --endpoint, and SSL_CERT_FILE, HTTP_PROXY and HTTPS_PROXY in the environment"
        raise ModelError("The endpoint cannot be used", f"{url}: {error}", hint) from error
    return Server(url, client, asyncio.Semaphore(concurrency), timeout_s, patience_s, key)


def key_from(variable: str | None) -> str:
    """The key in an environment variable; '' if none is named. Raises ModelError, which never holds the key."""
    if variable is None:
        return ""
    # The name is not shown: it may be a key that was given in its place.
    key = os.environ.get(variable, "").strip()
    if not key:
        hint = "Check --api-key-env (or api_key_env): it must name a variable of this shell, set and exported"
        raise ModelError("The environment variable for the endpoint's key is not set", "", hint)
    # Quotes and backslashes would be escaped in JSON, where the key would no longer be found to be cut out.
    if not re.fullmatch(r"[!-~]+", key) or any(c in key for c in "\"'\\<>"):
        hint = "Check what the variable holds: one word of plain characters"
        raise ModelError("The endpoint's key holds characters that no key has", "", hint)
    return key


def _now() -> float:
    return asyncio.get_running_loop().time()


def _reason(error: Exception, timeout_s: float) -> str:
    """Why there was no answer, in few words."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection in {CONNECT_S:.0f} s"
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout_s:.0f} s"
    root = list(_causes(error))[-1]
    said = os.strerror(root.errno) if isinstance(root, OSError) and root.errno and root.errno > 0 else str(error)
    return " ".join(f"{said or type(error).__name__}".split())[:200].lower()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; of several connection attempts, each one's."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        if isinstance(seen, BaseExceptionGroup):
            for inner in seen.exceptions:
                yield from _causes(inner)
        seen = seen.__cause__ or seen.__context__


def _retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After asks for, given as such or as a date (RFC 9110, 10.2.3); None if it says nothing."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        until = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _words(text: str) -> tuple[str, Mapping[str, Any]]:
    """What the body of an error says, and the fields beside that."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return re.sub(r"<[^>]{0,200}>", " ", text), {}
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error), {}
    said = error.get("message") or error.get("detail") or text
    return said if isinstance(said, str) else json.dumps(said), error
