"""Servers to test endpoints against: llama.cpp's own with the built-in model, and one that does as it is told."""

import contextlib
import json
import math
import re
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trustmine.config import Settings
from trustmine.llm.base import NoAnswer
from trustmine.llm.remote import RemoteEngine
from trustmine.records import Completion
from trustmine.resources import built_in_model

KEY = "sk-test-4f1c9a7be2d84d50"
KEY_ENV = "ENDPOINT_TEST_KEY"
MODEL = "smollm2"
KINDS = ("function", "variable")

_LLAMA_SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias, params.api_keys = sys.argv[1], {sys.argv[2]}, [sys.argv[3]]
params.n_ctx, params.n_parallel, params.warmup, params.fit_params = 4096, 2, False, False
# One thread that does not spin: others may need the cores.
for cpu in (params.cpuparams, params.cpuparams_batch):
    cpu.n_threads, cpu.poll = 1, 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def llama_server() -> Iterator[str]:
    """The address of a llama-server with the built-in model, two slots of 2,048 tokens, and a key."""
    with subprocess.Popen(
        [sys.executable, "-c", _LLAMA_SERVER, str(built_in_model()), MODEL, KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            address = next(found for line in lines if (found := re.match(r"http://[\d.:]+", line)))
            yield f"{address[0]}/v1"
        finally:
            process.kill()


@dataclass(frozen=True)
class Reply:
    """What a Told server answers to one chat completion."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None  # answers only then


def chat(content: str | None = "fine", **more: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"choices": [choice | more], "usage": usage}


def logprobs(**probabilities: float) -> dict[str, Any]:
    """Log-probabilities of a chat completion's first token."""
    tops = [{"token": token, "logprob": math.log(p)} for token, p in probabilities.items()]
    return {"logprobs": {"content": [{**tops[0], "top_logprobs": tops}]}}


def poll(of: RemoteEngine) -> Completion | NoAnswer:
    """The one answer that is under way."""
    [(_, answer)] = of.poll()
    return answer


class Told:
    """A server with real sockets: answers like a plain one, but first gives what stands in `script`."""

    def __init__(self, port: int = 0, models: object = None, owner: str = "me") -> None:
        self.models = models or {"data": [{"id": MODEL, "owned_by": owner, "max_model_len": 2048}]}
        self.script: deque[Reply] = deque()
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | Reply] = lambda body: chat()
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []  # path, headers, body
        self.gone = threading.Event()  # set when a client has left before its answer
        self._connections: list[socket.socket] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                told._connections.append(self.connection)

            def do_GET(self) -> None:
                told.asked.append((self.path, dict(self.headers), {}))
                if self.path.endswith("/models") and told.models != "none":
                    self.give(Reply(body=json.dumps(told.models).encode()))
                else:
                    self.give(Reply(404, b"<html>nothing here</html>"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.asked.append((self.path, dict(self.headers), body))
                answer = told.script.popleft() if told.script else told.answer(body)
                self.give(answer if isinstance(answer, Reply) else Reply(body=json.dumps(answer).encode()))

            def give(self, reply: Reply) -> None:
                if reply.wait is not None:
                    reply.wait.wait(30)
                with contextlib.suppress(ConnectionError):
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.end_headers()
                    self.wfile.write(reply.body)
                    return
                told.gone.set()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def chats(self) -> list[dict[str, Any]]:
        """The bodies of the chat completions asked for."""
        return [body for _, _, body in self.asked if body]

    def close(self) -> None:
        """Stops, and breaks off every connection as a killed server would."""
        self._http.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        self._thread.join()


@contextlib.contextmanager
def told(**more: Any) -> Iterator[Told]:
    server = Told(**more)
    try:
        yield server
    finally:
        server.close()


def settings(url: str, **more: Any) -> Settings:
    """Settings with this endpoint and the key."""
    fields: dict[str, Any] = {"endpoint": url, "api_key_env": KEY_ENV, "endpoint_patience_s": 20.0, **more}
    return Settings(**fields)
