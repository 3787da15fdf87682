"""Writes down what crosses into the cloud: each message of the witness's subscriptions, a line of JSON.

python tests/edge/witness.py PORT FILE
"""

# proton has its types loosely, and is only there where the stand-in is.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import sys
from pathlib import Path
from typing import Any

from edge.place import WITNESS
from proton.handlers import MessagingHandler
from proton.reactor import Container

from services.uplink.traffic import UP


class Witness(MessagingHandler):
    """Takes all there is, and keeps the bodies as they came."""

    def __init__(self, address: str, file: Path) -> None:
        super().__init__()
        self._address = address
        self._file = file.open("a", buffering=1)

    def on_start(self, event: Any) -> None:
        connection = event.container.connect(self._address)
        for topic in sorted({one.topic for one in UP}):
            event.container.create_receiver(connection, f"{topic}/subscriptions/{WITNESS}")

    def on_message(self, event: Any) -> None:
        body = event.message.body
        text = bytes(body).decode() if isinstance(body, bytes | bytearray | memoryview) else str(body)
        self._file.write(" ".join(text.split("\n")) + "\n")


if __name__ == "__main__":
    Container(Witness(f"127.0.0.1:{sys.argv[1]}", Path(sys.argv[2]))).run()
