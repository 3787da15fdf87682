"""The trainer as a child that never outlives the service, and that is warm before there is a job.

    python -m services.retrain_trigger.backends.child PARENT_PID NICENESS

Imports what a training needs, then waits for one line on stdin: the path of a job file. What it prints from then on
goes to output.log beside that file. Without a line it ends.
"""

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ORPHANED = 4
HEAVY = ("onnxruntime", "skl2onnx", "sklearn.linear_model", "scipy.sparse", "services.retrain_trigger.export")


def main(arguments: list[str]) -> int:
    parent, niceness = int(arguments[0]), int(arguments[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(niceness)
    if os.getppid() != parent:  # it died before the signal was asked for
        return ORPHANED
    from services.retrain_trigger import trainer

    for name in HEAVY:
        importlib.import_module(name)
    job = sys.stdin.readline().strip()
    if not job:
        return 0
    log = os.open(Path(job).with_name("output.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return trainer.main([job])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
