"""Models with a recurrent state, which cannot be taken back to an earlier token: the same answers, never a crash."""

import math
from pathlib import Path
from typing import Any

import pytest
from llm_helpers import answers, question
from model_helpers import write_recurrent_model

from trustmine.llm.local import LocalEngine
from trustmine.records import Completion, Request

RULES = "Answer about this code as a careful reviewer would. " * 12
ONE = {"n_sequences": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "recurrent.gguf"
    write_recurrent_model(path)
    return path


def asked(n: int) -> list[Request]:
    """A verdict and a reason about the same code."""
    code = f"{RULES}\nfunction number {n}:\n" + "".join(f"x{n + line} = read(b, {line * n});\n" for line in range(8))
    return [
        question(code + "Is it safe?", labels=("yes", "no", "cannot decide", "Cannot decide")),
        question(code + "Is it safe? Say why.", max_tokens=12),
    ]


def said(model: Path, **layout: Any) -> list[Completion]:
    engine = LocalEngine.open(model, n_ctx=1024, n_threads=1, known_sha256="0", **layout)
    try:
        return answers(engine, [request for n in range(8) for request in asked(n)])
    finally:
        engine.close()


@pytest.mark.parametrize("layout", [{"n_sequences": 6}, {"n_sequences": 6, "kv_layout": "unified"}])
def test_answers_side_by_side_are_those_of_one_at_a_time(model: Path, layout: dict[str, Any]) -> None:
    for alone, beside in zip(said(model, **ONE), said(model, **layout), strict=True):
        if alone.label_logprobs is None or beside.label_logprobs is None:
            assert alone.text == beside.text
        else:
            apart = [
                math.exp(alone.label_logprobs[k]) - math.exp(beside.label_logprobs[k]) for k in alone.label_logprobs
            ]
            assert max(map(abs, apart)) < 1e-3
