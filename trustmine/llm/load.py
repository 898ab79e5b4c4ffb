"""The engine that the settings ask for: a server's model if they name an endpoint, else a file."""

from collections.abc import Callable
from pathlib import Path

from trustmine import resources
from trustmine.config import Settings
from trustmine.errors import ModelError
from trustmine.llm.base import Engine, Progress

KnownHash = Callable[[Path, int, int], str | None]  # path, size_bytes, mtime_ns -> sha256, if known


def model_path(settings: Settings) -> Path:
    """The model file of settings without an endpoint. Raises ModelError if the built-in one is not installed."""
    return resources.built_in_model() if settings.model is None else Path(settings.model).expanduser().absolute()


def open_engine(settings: Settings, known_hash: KnownHash | None = None, progress: Progress | None = None) -> Engine:
    """An engine with the model of the settings, ready to answer.

    `known_hash` spares hashing a file again that has not changed; `progress`
    is told of bytes hashed. Raises ModelError.
    """
    if settings.endpoint is not None:
        from trustmine.llm.remote import RemoteEngine

        return RemoteEngine.open(settings)
    from trustmine.llm.local import LocalEngine  # loads llama.cpp, which most commands do without

    path = model_path(settings)
    known = None
    if known_hash is not None and path.is_file():
        stat = path.stat()
        known = known_hash(path, stat.st_size, stat.st_mtime_ns)
    engine = LocalEngine.open(
        path,
        n_ctx=settings.n_ctx,
        n_gpu_layers=settings.n_gpu_layers,
        n_threads=settings.n_threads,
        n_sequences=settings.n_sequences,
        n_batch=settings.n_batch,
        n_ubatch=settings.n_ubatch,
        kv_layout=settings.kv_layout,
        flash_attention=settings.flash_attention,
        is_deterministic=settings.deterministic,
        known_sha256=known,
        progress=progress,
    )
    info = engine.info
    if not path.is_file() or (path.stat().st_size, path.stat().st_mtime_ns) != (info.size_bytes, info.mtime_ns):
        engine.close()
        hint = "Answers must name the file that gave them: wait until it is whole, and start again"
        raise ModelError("The model file changed while it was loaded", str(path), hint)
    return engine
