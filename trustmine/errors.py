"""The errors that a user can do something about.

Each says what happened, where, and what to do. Trouble with one row never
gets here: a stage rejects it or its exception fails the row. These errors are
trouble with the run: they stop it with one message and exit code 1.
"""


class TrustmineError(Exception):
    """Something the user can mend: what happened, where, and a hint."""

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.what, self.where, self.hint)  # so that a worker process can send it

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.where, self.hint) if part)


class RepositoryError(TrustmineError):
    """No repository there, an empty one, or one that cannot be read."""


class DatabaseError(TrustmineError):
    """Not our database, a newer one, or one that cannot be written."""


class ModelError(TrustmineError):
    """No model file, one that llama.cpp cannot load, or an endpoint that does not answer."""


class PromptError(TrustmineError):
    """A prompt file is missing, malformed, or has a slot nobody fills."""


class SettingsError(TrustmineError):
    """A settings file, variable or flag that cannot be understood."""
