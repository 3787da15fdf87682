"""The trainer as a child that never outlives the service, and that is warm before there is a job.

    python -m services.retrain_trigger.backends.child PARENT_PID NICENESS [COMMAND ...]

Imports what a training needs, then waits for one line on stdin: `train` or `judge`, and the path of a job file. What it
prints from then on goes to output.log beside that file. Without a line it ends. With a command it becomes that command
instead, in the folder of the job file, which takes the place of `{folder}` in it or else is its last argument.
"""

import ctypes
import importlib
import os
import select
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
TASKS = {"train": "services.retrain_trigger.trainer", "judge": "services.retrain_trigger.judge"}
ORPHANED, NO_COMMAND = 4, 127
OWN = ("HALFSURE_", "DAPR_", "APP_API_TOKEN", "AZURE_")  # of the environment: the service's, nobody else's
HEAVY = ("onnxruntime", "skl2onnx", "sklearn.linear_model", "scipy.sparse", "services.retrain_trigger.export")


def main(arguments: list[str]) -> int:
    parent, niceness = int(arguments[0]), int(arguments[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(niceness)
    if os.getppid() != parent:  # it died before the signal was asked for
        return ORPHANED
    command = arguments[2:]
    if not command and not select.select([sys.stdin], [], [], 0)[0]:  # else it shall not wait for what it may not need
        for name in HEAVY:
            importlib.import_module(name)
    task, _, job = sys.stdin.readline().strip().partition(" ")
    if not job:
        return 0
    log = os.open(Path(job).with_name("output.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if command:
        return _become(command, Path(job).parent)
    return importlib.import_module(TASKS[task]).main([job])


def _become(command: list[str], folder: Path) -> int:
    """Returns only when there is no such command."""
    given = [part.replace("{folder}", str(folder)) for part in command]
    if given == command:
        given.append(str(folder))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}  # noqa: TID251
    os.chdir(folder)
    try:
        os.execvpe(given[0], given, environment)
    except OSError as error:
        print(f"{given[0]} cannot be started: {error}", file=sys.stderr)
        return NO_COMMAND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
