"""What llama.cpp says when something goes wrong: it is in the error, or where somebody listens, never on stderr."""

import subprocess
import sys

import pytest

from trustmine.llm.local import LocalEngine
from trustmine.resources import built_in_model


def test_a_failed_evaluation_says_what_llama_cpp_said(capfd: pytest.CaptureFixture[str]) -> None:
    engine = LocalEngine.open(built_in_model(), n_ctx=256, n_threads=1, known_sha256="0")
    engine._cache.take("", [5, 10**9], 0)  # the second is no token of the vocabulary
    with pytest.raises(RuntimeError, match=r"llama_decode: -1 with 2 tokens of 1 sequences: .*invalid token"):
        engine._cache.evaluate()
    engine.close()
    assert capfd.readouterr() == ("", "")


def test_errors_reach_who_listens_and_not_stderr() -> None:
    program = """if True:
        import logging
        from trustmine.llm import gguf
        gguf._on_log(4, b"unheard", None)
        logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
        gguf._on_log(4, b"heard", None)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "trustmine.llm.llama_cpp ERROR heard\n"
