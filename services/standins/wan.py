"""A device's way to the cloud on one machine: a forwarder that can be cut, SIGUSR1, and mended, SIGUSR2.

python -m services.standins.wan --forward 8195:8191 --forward 8196:8193
"""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Sequence

CHUNK = 1 << 16


class Wan:
    """Forwards connections from one port to another; while it is cut, it ends all and takes none."""

    def __init__(self) -> None:
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._cut = False

    async def forward(self, near: int, far: int) -> None:
        """Listen on `near` for ever."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connect(reader, writer, far)

        server = await asyncio.start_server(connected, "127.0.0.1", near)
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: int) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", far)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


async def run(pairs: Sequence[tuple[int, int]]) -> None:
    wan, loop = Wan(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, wan.cut)
    loop.add_signal_handler(signal.SIGUSR2, wan.mend)
    await asyncio.gather(*(wan.forward(near, far) for near, far in pairs))


def _pair(text: str) -> tuple[int, int]:
    near, _, far = text.partition(":")
    return int(near), int(far)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="wan", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--forward", action="append", type=_pair, required=True, metavar="NEAR:FAR")
    asyncio.run(run(parser.parse_args(arguments).forward))


if __name__ == "__main__":
    main()
