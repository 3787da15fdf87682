"""Ends what a supervisor that was killed may have left, and nothing else."""

import signal
import time
from collections.abc import Mapping
from typing import Any

from services.cli.home import same_process
from services.cli.process import group_exists, signal_group

_GRACE = 5.0


def leftovers(record: Mapping[str, Any]) -> dict[str, int]:
    """Recorded processes that are still there, by name; a pid that was given to another process is not."""
    left = {}
    for entry in record.get("processes", ()):
        pid = entry.get("pid")
        if pid and same_process(pid, entry["started_at"]) is not None:
            left[entry["name"]] = pid
    return left


def reap(record: Mapping[str, Any]) -> dict[str, int]:
    """Kill the recorded processes that are still there, with their groups; returns them by name."""
    left = leftovers(record)
    for pid in left.values():
        signal_group(pid, signal.SIGKILL)
    deadline = time.monotonic() + _GRACE
    while any(group_exists(pid) for pid in left.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
