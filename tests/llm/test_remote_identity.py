"""Which model an endpoint is: its identity, what decides an answer, how it is chosen."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from endpoint_helpers import MODEL, Told, chat, logprobs, settings, told
from llm_helpers import question

from trustmine import tools
from trustmine.errors import ModelError
from trustmine.llm.load import open_engine
from trustmine.llm.remote import RemoteEngine
from trustmine.records import Message, Request

pytestmark = pytest.mark.usefixtures("environment")


def test_a_model_is_the_same_wherever_it_runs(open_told: Callable[..., tuple[Told, RemoteEngine]]) -> None:
    (_, one), (_, other) = open_told(), open_told()
    assert one.info.path != other.info.path
    assert one.info.sha256 == other.info.sha256
    assert one.request_hash(question("a")) == other.request_hash(question("a"))
    with told(models={"data": [{"id": "other"}]}) as server:
        third = RemoteEngine.open(settings(server.url))
        third.close()
    assert third.info.sha256 != one.info.sha256
    assert third.request_hash(question("a")) != one.request_hash(question("a"))


def test_a_request_hash_changes_with_all_that_decides_the_answer(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def knows_grammars(body: dict[str, Any]) -> dict[str, Any]:
        return chat("trustmine-7" if "grammar" in body else "prose", **logprobs(yes=0.5, no=0.5))

    (_, plain), (_, able) = open_told(), open_told(knows_grammars)
    requests = [
        question("a"),
        question("b"),
        question("a", max_tokens=13),
        question("a", temperature=0.5),
        question("a", seed=1),
        question("a", repeat_penalty=1.1),
        question("a", labels=("x", "y")),
        question("a", labels=("y", "x")),
        question("a", grammar='root ::= "x"'),
        Request("test", "test", "0", (Message("user", "You are helpful."), Message("user", "a")), max_tokens=12),
    ]
    hashes = {plain.request_hash(request) for request in requests}
    assert len(hashes) == len(requests)
    # Whether the form was in force, and how labels were scored, decides too.
    for request in requests:
        is_open = request.grammar is None and not request.labels
        assert (able.request_hash(request) in hashes) == is_open


def test_status_knows_an_endpoints_model_without_asking_it(
    conn: sqlite3.Connection, open_told: Callable[..., tuple[Told, RemoteEngine]]
) -> None:
    with told(models={"data": [{"id": "one"}, {"id": "two", "max_model_len": 9}]}) as server:
        url = server.url
        assert tools.known_model(conn, settings(url, model="one")) is None
        for name in ("one", "two", "one"):
            opened, _ = tools.open_engine(conn, settings(url, model=name))
            opened.close()
    for name in ("one", "two"):
        known = tools.known_model(conn, settings(url, model=name))
        assert known is not None
        assert (known[0].name, known[0].path) == (name, url)
    unnamed = tools.known_model(conn, settings(url))
    assert unnamed is not None
    assert unnamed[0].name == "one"  # the one that was opened last
    assert tools.known_model(conn, settings("http://127.0.0.1:1/v1")) is None


def test_settings_choose_the_endpoint(open_told: Callable[..., tuple[Told, RemoteEngine]]) -> None:
    server, _ = open_told()
    opened = open_engine(settings(server.url, model=MODEL))
    assert isinstance(opened, RemoteEngine)
    opened.close()


@pytest.mark.parametrize(
    ("models", "wanted", "complaint"),
    [
        ({"data": [{"id": "one"}, {"id": "two"}]}, None, "has several models"),
        ({"data": [{"id": "one"}, {"id": "two"}]}, "three", "has no model 'three'"),
        ({"data": []}, None, "does not list its models"),
        ("none", None, "does not list its models"),
        ({"models": 1}, None, "is no list of models"),
    ],
)
def test_which_model_is_meant_must_be_clear(models: object, wanted: str | None, complaint: str) -> None:
    with told(models=models) as server:
        with pytest.raises(ModelError, match=complaint) as error:
            RemoteEngine.open(settings(server.url, model=wanted))
        if "one" in str(models) and models != "none":
            assert "one, two" in error.value.where


def test_a_server_without_a_list_takes_the_name_given() -> None:
    with told(models="none") as server:
        opened = RemoteEngine.open(settings(server.url, model="mine"))
        assert opened.info.name == "mine"
        opened.close()
