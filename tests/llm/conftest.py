"""Fixtures of the tests of endpoints."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from endpoint_helpers import KEY, KEY_ENV, Reply, Told, settings

from trustmine.llm import server
from trustmine.llm.remote import RemoteEngine


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is set, no proxy is asked, and waiting begins with little."""
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(server, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def open_told(environment: None) -> Iterator[Callable[..., tuple[Told, RemoteEngine]]]:
    """Starts a server that does as it is told and opens its model; both are closed after the test."""
    opened: list[Told | RemoteEngine] = []

    def start(
        answer: Callable[[dict[str, Any]], dict[str, Any] | Reply] | None = None,
        *,
        owner: str = "me",
        **more: Any,
    ) -> tuple[Told, RemoteEngine]:
        server = Told(owner=owner)
        opened.append(server)
        if answer is not None:
            server.answer = answer
        engine = RemoteEngine.open(settings(server.url, **more))
        opened.append(engine)
        server.asked.clear()
        return server, engine

    yield start
    for thing in reversed(opened):
        thing.close()
