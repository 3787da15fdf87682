"""Outlives the supervisor by an instant: when it is gone, kills the process groups it had started.

The kernel's parent-death signal reaches only direct children, and only on Linux; this reaches their children too.
Told `+<pgid>` and `-<pgid>` on stdin, which closes when the teller dies.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Keep the set of groups until stdin ends, then kill what is left of them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        pgid = int(line[1:])
        if line.startswith("+"):
            groups.add(pgid)
        else:
            groups.discard(pgid)
    for pgid in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pgid, signal.SIGKILL)


if __name__ == "__main__":
    main()
