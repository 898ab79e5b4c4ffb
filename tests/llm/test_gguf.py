import llama_cpp
import pytest

from trustmine.llm.gguf import Model, uses_amx
from trustmine.resources import built_in_model

WITH_AMX = b"CPU : AVX512_BF16 = 1 | AMX_INT8 = 1 | LLAMAFILE = 1 | REPACK = 1 | "


@pytest.mark.parametrize(
    ("said", "expected"),
    [(WITH_AMX, True), (WITH_AMX.replace(b"8 = 1", b"8 = 0"), False), (b"CPU : NEON = 1 | ", False)],
)
def test_uses_amx__by_what_llama_cpp_says_of_its_build(said: bytes, expected: bool) -> None:
    assert uses_amx(said) is expected


@pytest.mark.parametrize(("said", "expected"), [(WITH_AMX, False), (b"CPU : AVX2 = 1 | REPACK = 1 | ", True)])
def test_a_build_with_amx_loads_models_without_extra_layouts_of_weights(
    said: bytes, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    load = llama_cpp.llama_model_load_from_file

    def loading(path: bytes, params: llama_cpp.llama_model_params) -> object:
        asked.append(params.use_extra_bufts)
        return load(path, params)

    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: said)
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loading)
    Model(built_in_model(), 0).free()
    assert asked == [expected]
