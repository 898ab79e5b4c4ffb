"""The command line: parse, call one function, print. See README.md for a tour.

A command is a function in the module of its group. Its line in COMMANDS puts
it into `trustmine --help`, in that order. Here is also what becomes of errors.
"""

import platform
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer._click.exceptions import ClickException, UsageError  # typer carries click and does not export these

from trustmine import __version__, console, stopping
from trustmine.cli import examples, labels, results, setup, status, upkeep, work
from trustmine.errors import DatabaseError, TrustmineError
from trustmine.text import is_utf_8

# Commands import what loads git, parsers or models inside their functions:
# `trustmine --help` and `trustmine status` answer at once.

COMMANDS: tuple[Callable[..., None], ...] = (
    work.ingest,
    work.advance,
    work.run,
    examples.propose,
    examples.benign,
    work.reset,
    status.status,
    status.show,
    labels.label,
    labels.audit,
    labels.evaluate,
    upkeep.verify,
    upkeep.failures,
    upkeep.retry,
    upkeep.upgrade,
    upkeep.backup,
    results.export,
    results.leakage,
    results.score,
    results.serve,
    setup.demo,
    setup.doctor,
    setup.settings,
)
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    help="Vulnerability-focused training data from the git histories of C and C++ projects.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command()(_command)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"trustmine {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(args: list[str] | None = None) -> None:
    """Run a command; exit 0 fine, 1 known error, 2 usage, 3 our bug, 130 interrupted."""
    stopping.listen()
    with console.streams():
        code = _exit_code(lambda: _run(sys.argv[1:] if args is None else args))
    stopping.end()
    sys.exit(code)


def _run(args: list[str]) -> object:
    for arg in args:
        if not is_utf_8(arg):
            raise UsageError(f"{arg!r} is not UTF-8. Give the file another name, or a link to it that has one.")
    return app(args=args, standalone_mode=False)


def _exit_code(command: Callable[[], object]) -> int:
    try:
        code = command()
        console.out.file.flush()  # what cannot be written is an error of this command
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.say("Interrupted; nothing is lost: run it again to go on")
        return INTERRUPTED
    except console.Gone:
        return 0
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        hint = "Nothing that was finished is lost: run it again to go on"  # typer says nothing, and makes it a 1
        console.print_error(TrustmineError("Another program that this one works with has ended", "", hint))
        return 1
    except sqlite3.OperationalError as error:
        hint = "Check room, rights and whether another program holds it; nothing that was finished is lost"
        console.print_error(DatabaseError(f"The database does not work: {error}", "", hint))
        return 1
    except TrustmineError as error:
        console.print_error(error)
        return 1
    except MemoryError:
        hint = "Nothing that was finished is lost. Give it more memory, fewer --workers, or a smaller n_ctx or model"
        console.print_error(TrustmineError("Out of memory", "", hint))
        return 1
    except Exception as error:
        if type(error) is sqlite3.DatabaseError:  # of its kinds, mistakes in SQL are our bugs
            hint = "See what is wrong: trustmine verify; then restore a backup, or try: sqlite3 FILE .recover"
            console.print_error(DatabaseError(f"The database is damaged: {error}", "", hint))
            return 1
        if isinstance(error, OSError) and error.errno is not None:
            console.print_error(console.in_parts(error))
            return 1
        if isinstance(error, UnicodeEncodeError) and _is_path(error.object):
            UsageError(f"{error.object!r} is not UTF-8. Give the file or its folder another name.").show()
            return 2
        console.say(f"This is a bug in trustmine: {type(error).__name__}: {error}\n  Details: {_log(error)}")
        return 3


def _is_path(text: str) -> bool:
    """Whether this is where a file is or would be, and not text of a repository; it has a name that is not UTF-8."""
    return not is_utf_8(text) and Path(text).is_absolute() and Path(text).parent.exists()


def _log(error: Exception) -> str:
    """A new file with versions and the traceback; these themselves where none can be written."""
    from trustmine.gitcli import without_password

    details = (
        f"trustmine {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{[without_password(arg) for arg in sys.argv]}\n\n{''.join(traceback.format_exception(error))}"
    )
    try:
        fd, name = tempfile.mkstemp(prefix="trustmine-", suffix=".log")
    except OSError:
        return details
    try:
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123 - it is open
            file.write(details)
    except OSError:  # the disk is full
        Path(name).unlink()
        return details
    return name
