"""Servers of the sources' tests, each a process of its own on loopback."""

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Where Debian's python3-gst-1.0 lives; it is built for the system's own Python.
SYSTEM_PYTHON = "/usr/bin/python3"
NO_GSTREAMER = (
    "no RTSP server of GStreamer: apt install python3-gst-1.0 gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good"
)


def free_port() -> int:
    """Below the range from which clients get theirs, above the stacks of other tests."""
    while True:
        port = random.randrange(31_800, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A child that reads lines and says `ready` first."""

    def __init__(self, *command: str) -> None:
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.greeting = self.line()
        assert self.greeting.startswith("ready"), self.greeting

    def line(self) -> str:
        assert self._child.stdout
        return self._child.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


class Link:
    """A way to a server that can be cut: connections through it end then, and new ones are refused."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        both = {writer, far_writer}
        self._writers |= both
        with contextlib.suppress(OSError):
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._writers -= both


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.contextmanager
def opcua_server(port: int) -> Iterator[Server]:
    server = Server(sys.executable, str(HERE / "opcua_server.py"), str(port))
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def rtsp_server(port: int, *arguments: str) -> Iterator[Server]:
    server = Server(SYSTEM_PYTHON, str(HERE / "rtsp_server.py"), str(port), *arguments)
    try:
        yield server
    finally:
        server.stop()


def require_rtsp() -> None:
    """Skips where Debian's GStreamer is not installed; where it must be, that is a failure."""
    program = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    try:
        found = (
            subprocess.run([SYSTEM_PYTHON, "-c", program], capture_output=True, timeout=60, check=False).returncode == 0
        )
    except OSError:
        found = False
    if not found and os.environ.get("HALFSURE_REQUIRE_RTSP"):
        pytest.fail(NO_GSTREAMER)
    if not found:
        pytest.skip(NO_GSTREAMER)
