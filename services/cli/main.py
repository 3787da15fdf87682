"""The `halfsure` command."""

import sys

from services.cli.commands import (
    backup,
    check,
    deadletters,
    doctor,
    environment,
    exchange,
    ingest,
    iotedge,
    k8s,
    label,
    label_studio,
    labels,
    logs,
    loop,
    models,
    new,
    smoke,
    stack,
    subject,
    token,
)
from services.cli.errors import EXPECTED
from services.cli.terminal import app, fail

__all__ = ["app", "main"]

_PARTS = (
    stack,
    new,
    label,
    loop,
    smoke,
    ingest,
    labels,
    exchange,
    label_studio,
    models,
    logs,
    environment,
    doctor,
    check,
    k8s,
    iotedge,
    token,
    deadletters,
    backup,
    subject,
)


def main() -> None:
    """Run the command; what a user can put right is said in a sentence, not in a traceback."""
    try:
        app()
    except EXPECTED as error:
        fail(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
