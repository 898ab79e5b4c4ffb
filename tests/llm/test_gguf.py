import logging
import signal

import llama_cpp
import pytest

from trustmine import stopping
from trustmine.llm import gguf
from trustmine.llm.gguf import Model
from trustmine.resources import built_in_model

WITH_AMX = b"CPU : AVX2 = 1 | AVX512 = 0 | AMX_INT8 = 1 | REPACK = 1 | "
WITHOUT = b"CPU : AVX2 = 1 | AVX512 = 0 | AMX_INT8 = 0 | REPACK = 1 | "


@pytest.mark.parametrize(
    ("said", "mark", "expected"),
    [
        (WITH_AMX, "no_such_mark", True),
        (WITHOUT, "no_such_mark", False),
        (b"CPU : NEON = 1 | ", "no_such_mark", False),
        (WITH_AMX, "llama_decode", False),  # any name that the library has
    ],
)
def test_code_for_amx_is_left_out_unless_the_build_bears_the_mark(
    said: bytes, mark: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    load = llama_cpp.llama_model_load_from_file

    def loading(path: bytes, params: llama_cpp.llama_model_params) -> object:
        asked.append(params.use_extra_bufts)
        return load(path, params)

    monkeypatch.setattr(gguf, "_AMX_MARK", mark)
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: said)
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loading)
    Model(built_in_model(), 0).free()
    assert gguf.leaves_amx_out() is expected
    assert asked == [not expected]


def test_an_environment_made_by_the_makefile_leaves_nothing_out() -> None:
    assert not gguf.leaves_amx_out(), "Try: make clean setup"
    assert gguf.processor_features()


def test_features_are_those_that_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: WITH_AMX)
    assert gguf.processor_features() == "AVX2, AMX_INT8, REPACK"


@pytest.mark.usefixtures("as_in_a_terminal")
def test_a_stop_while_a_model_loads_is_heard_and_ends_the_loading(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A signal is handled where Python runs next, and that is a callback of llama.cpp, which nothing leaves."""
    loaded = []
    load = llama_cpp.llama_model_load_from_file

    def loading(path: bytes, params: llama_cpp.llama_model_params) -> object:
        loaded.append(load(path, params))
        return loaded[0]

    class Stop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loading)
    logger, stop = logging.getLogger("trustmine.llm.llama_cpp"), Stop()
    caplog.set_level(logging.DEBUG, logger.name)
    logger.addHandler(stop)
    stopping.listen()
    try:
        with pytest.raises(KeyboardInterrupt):
            Model(built_in_model(), 0)
    finally:
        logger.removeHandler(stop)
    assert loaded == [None]
