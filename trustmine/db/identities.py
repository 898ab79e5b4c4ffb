"""Who a worker is, and whether its process is still there."""

import os
import re
import socket
import uuid
from pathlib import Path

_HOSTS_OWN = "4026531836"  # PROC_PID_INIT_INO of Linux: the namespace of the host's own process ids


def worker_name() -> str:
    """A name no other worker has: host:pid:start:nonce."""
    return f"{_host()}:{os.getpid()}:{started(os.getpid())}:{uuid.uuid4().hex[:8]}"


def is_alive(worker: str) -> bool:
    """False only if the worker ran on this host and its process is gone."""
    _, pid, began, _ = worker.rsplit(":", 3)
    return not is_here(worker) or started(int(pid)) == began


def is_here(worker: str) -> bool:
    """Whether the worker runs, or ran, on this host."""
    return worker.rsplit(":", 3)[0] == _host()


def _host() -> str:
    """Where process ids mean the same: the host, and in a container that numbers its own which one (namespaces(7))."""
    try:
        space = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        space = _HOSTS_OWN
    return socket.gethostname() + ("" if space == _HOSTS_OWN else f"/{space}")


def started(pid: int) -> str:
    """When the process started (clock ticks since boot, proc(5)); '' if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = stat[stat.rindex(")") + 2 :].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, ValueError):
        return "" if Path("/proc/self/stat").exists() else _started_elsewhere(pid)


def _started_elsewhere(pid: int) -> str:
    """Systems without /proc: only whether the process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "0"
