"""Several processes that work on a list of things, each of them done as a whole by one.

A thing whose process dies is given to another one, and given up when that dies
too. Results come as they get done. When the caller stops listening, or dies,
the processes end.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from trustmine import stopping

T = TypeVar("T")
R = TypeVar("R")

MAX_TRIES = 2  # processes that may die of one thing


class GivenUp:
    """In the place of a result: every process that worked on it died."""


def share(work: Callable[[T], R], items: Sequence[T], n_processes: int) -> Generator[tuple[T, R | GivenUp], None, None]:
    """Each item with its result, as they get done.

    `work` and what it takes and gives go to other processes by pickle; with one process all is done in this one.
    Raises what `work` raises.
    """
    if n_processes <= 1:
        for item in items:
            yield item, work(item)
        return
    crew = _Crew(work)
    try:
        yield from crew.run(items, n_processes)
    finally:
        crew.end()


class _Crew(Generic[T, R]):
    def __init__(self, work: Callable[[T], R]) -> None:
        self._work = work
        self._busy: dict[Connection, tuple[BaseProcess, T, int]] = {}  # with the item, and how often it was tried

    def run(self, items: Sequence[T], n_processes: int) -> Generator[tuple[T, R | GivenUp], None, None]:
        waiting = deque((item, 0) for item in items)
        for _ in range(min(n_processes, len(waiting))):
            self._start(*waiting.popleft())
        while self._busy:
            for link in multiprocessing.connection.wait(list(self._busy)):
                assert isinstance(link, Connection)
                process, item, n_tries = self._busy.pop(link)
                try:
                    result, error = link.recv()
                except (EOFError, OSError):
                    process.join()
                    link.close()
                    if n_tries + 1 < MAX_TRIES:
                        waiting.append((item, n_tries + 1))
                    else:
                        yield item, GivenUp()
                    if waiting:
                        self._start(*waiting.popleft())
                    continue
                if error is not None:
                    self._busy[link] = process, item, n_tries  # to be ended with the others
                    raise error
                if waiting:
                    self._give(link, process, *waiting.popleft())
                else:
                    link.close()
                    process.join()
                yield item, result

    def _start(self, item: T, n_tries: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_main, args=(self._work, theirs), name="trustmine-hand", daemon=True)
        with stopping.held_back():  # a stop comes when it is one of ours, and so is ended
            process.start()
            theirs.close()
            self._busy[ours] = process, item, n_tries
        self._give(ours, process, item, n_tries)

    def _give(self, link: Connection, process: BaseProcess, item: T, n_tries: int) -> None:
        self._busy[link] = process, item, n_tries
        with contextlib.suppress(OSError):  # that it has died is noticed when it is heard
            link.send(item)

    def end(self) -> None:
        for link, (process, _, _) in self._busy.items():
            link.close()
            process.terminate()
        for process, _, _ in self._busy.values():
            process.join()
        self._busy.clear()


def _main(work: Callable[[T], R], link: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)  # the others had to wait while we started
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or needs us no more
        while True:
            item = link.recv()
            try:
                answer: tuple[R | None, BaseException | None] = (work(item), None)
            except Exception as error:
                # Tracebacks do not travel between processes: they go along as a note.
                error.add_note("".join(traceback.format_exception(error)))
                answer = (None, error)
            link.send(answer)
