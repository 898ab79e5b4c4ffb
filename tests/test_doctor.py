import os
import shutil
import signal
from pathlib import Path

import pytest

from trustmine import doctor, resources
from trustmine.config import Settings
from trustmine.errors import ModelError, TrustmineError


def _killed(_settings: Settings) -> str:
    os.kill(os.getpid(), signal.SIGILL)
    return "not reached"


def _exits(_settings: Settings) -> str:
    os._exit(7)


def _raises_ours(settings: Settings) -> str:
    raise ModelError("Cannot read the model file", str(settings.model), "Check --model")


def _raises_another(_settings: Settings) -> str:
    raise ValueError("not a vocabulary")


def test_a_llama_cpp_that_ends_its_process_is_a_finding() -> None:
    check = doctor._attempt("model", lambda: doctor._apart(_killed, Settings()), "")
    assert not check.ok
    assert check.found == "llama.cpp crashed: Illegal instruction"
    assert "--no-cache-dir" in check.hint
    assert doctor._attempt("model", lambda: doctor._apart(_exits, Settings()), "").found.endswith("exit code 7")


def test_a_llama_cpp_that_cannot_even_be_loaded_leaves_doctor_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_model", _killed)
    monkeypatch.setattr(doctor, "_build", _killed)
    checks = doctor._models(Settings())
    assert [(check.name, check.ok) for check in checks] == [("model", False), ("processor", False)]
    assert {check.found for check in checks} == {"llama.cpp crashed: Illegal instruction"}
    monkeypatch.undo()
    assert [check.name for check in doctor._apart(doctor._build, Settings())] == ["processor", "GPU offload"]


def test_what_is_wrong_with_a_model_comes_through_whole() -> None:
    with pytest.raises(ModelError) as raised:
        doctor._apart(_raises_ours, Settings(model="m.gguf"))
    assert (raised.value.where, raised.value.hint) == ("m.gguf", "Check --model")
    check = doctor._attempt("model", lambda: doctor._apart(_raises_another, Settings()), "Give a GGUF file")
    assert (check.found, check.hint) == ("ValueError: not a vocabulary", "Give a GGUF file")


def test_a_folder_of_prompts_lacks_none(tmp_path: Path) -> None:
    shutil.copytree(resources.prompts_folder(), tmp_path / "prompts")
    settings = Settings(prompts=str(tmp_path / "prompts"))
    files = sorted((tmp_path / "prompts").glob("*.md"))
    assert doctor._resources(settings).startswith(f"{len(files)} prompts in ")
    for file in files:
        text = file.read_text()
        file.unlink()
        with pytest.raises(TrustmineError):
            doctor._resources(settings)
        file.write_text(text)
