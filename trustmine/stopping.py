"""Signals that ask a process to stop: Ctrl-C, a shutdown, a terminal that is closed.

Promises: the first one raises KeyboardInterrupt, so that what is complete is
kept and the rest given back; further ones are ignored, for they would
interrupt just that. A signal that whoever started the process wants ignored
(nohup) stays ignored.
"""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_n_later = 0  # how many `later` are open
_is_asked = False  # a stop waits for the last of them to end


def listen() -> None:
    """Have this process stop in order when it is asked to."""
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _stop(number: int, frame: object) -> None:
    for each in SIGNALS:
        signal.signal(each, _ignore)
    for fd in (1, 2):
        if _is_hung_up(fd):  # what is still said would fail, in the middle of stopping
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, fd)
            os.close(null)
    if _n_later:
        global _is_asked
        _is_asked = True
        return
    raise KeyboardInterrupt


def _ignore(number: int, frame: object) -> None:
    """Not SIG_IGN: of a signal that had come when it was set, Python says so, with a traceback."""


def end() -> None:
    """Further signals stay ignored while Python ends, which forgets its handlers. For the last thing a process does."""
    for each in SIGNALS:
        if signal.getsignal(each) is _ignore:
            signal.signal(each, signal.SIG_IGN)


def _is_hung_up(fd: int) -> bool:
    """Whether this was a terminal, and is none any more."""
    try:
        return stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd)
    except OSError:  # closed
        return False


@contextmanager
def later() -> Iterator[None]:
    """A stop that is asked for meanwhile is raised when this ends.

    For what must not be left half done, and for C code that calls back: what
    is raised in a callback of ctypes gets no further, so the stop would be lost.
    """
    global _n_later, _is_asked
    _n_later += 1
    try:
        yield
    finally:
        _n_later -= 1
        if _is_asked and not _n_later:
            _is_asked = False
            raise KeyboardInterrupt


def is_asked() -> bool:
    """Whether a stop waits for `later` to end."""
    return _is_asked


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait, here until this ends, and in a process that is started meanwhile until it listens.

    Python would print a traceback if one came while it starts.
    """
    with later():  # another thread, as one that draws progress, takes signals that are blocked in this one
        resource_tracker.ensure_running()  # else the first process starts it as well, which lets signals through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
