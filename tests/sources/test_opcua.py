"""OPC UA (row 4.8): a real server, asyncua's own in a process of its own, is subscribed to."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sources.feeding import Feeding, eventually, feeding, real_time
from sources.processes import Link, Server, free_port, opcua_server


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[int, Server]]:
    """A server for the tests that do not need it to be away."""
    port = free_port()
    with opcua_server(port) as server:
        yield port, server


def plc(port: int, **more: Any) -> dict[str, Any]:
    nodes = {"a": "ns=2;s=a", "b": "ns=2;s=b"}
    source = {"name": "plc", "kind": "opcua", "project": "table", "url": f"opc.tcp://127.0.0.1:{port}/", "nodes": nodes}
    return {**source, "period_seconds": 0.05, "timeout_seconds": 2, **more}


def write(server: Server, *values: str, at: float) -> None:
    server.tell(f"{at} {' '.join(values)}")
    assert server.line() == "written"


async def rows(feed: Feeding) -> dict[int, Any]:
    """Sequence: content, of all samples."""
    found = {}
    for record in await feed.samples("table"):
        answer = await feed.running.call("GET", f"/v1/samples/{record['sample_id']}/content?project=table")
        found[record["sequence"]] = answer.json()
    return found


async def until(feed: Feeding, **wanted: Any) -> dict[str, Any]:
    async def so() -> Any:
        view = await feed.source("plc", "table")
        return view if all(view[name] == value for name, value in wanted.items()) else None

    return await eventually(so)


async def test_tags_become_rows_once_each_and_over_a_lost_connection(
    tmp_path: Path, monkeypatch: Any, running: tuple[int, Server]
) -> None:
    (port, server), now = running, round(time.time()) - 10.0
    link = Link(port)
    async with feeding(tmp_path, monkeypatch, plc(link.port, tags=["press"])) as feed:
        await eventually(lambda: refused(feed))
        write(server, "1.5", "2.5", at=now)
        await link.open()
        await until(feed, state="connected")
        for n in range(1, 6):
            write(server, str(n), "-", at=now + n)
        await eventually(lambda: rows_have(feed, now, 5))
        expected = {
            moment(now): {"a": 1.5, "b": 2.5},
            **{moment(now + n): {"a": float(n), "b": 2.5} for n in range(1, 6)},
        }
        assert await rows(feed) == expected
        write(server, "6", "7", at=now + 6)  # both tags at once are one row
        await eventually(lambda: rows_have(feed, now, 6))
        expected[moment(now + 6)] = {"a": 6.0, "b": 7.0}
        server.tell("bad")

        async def bad() -> bool:
            return (await feed.source("plc", "table"))["dropped"].get("quality", 0) == 1

        await eventually(bad)
        await link.cut()
        view = await eventually(lambda: down(feed))
        assert (view["taken"], view["duplicates"]) == (7, 0)
        write(server, "8", "-", at=now + 7)  # nobody hears of it
        write(server, "6", "7", at=now + 6)  # as it stood: the same moment is the same sample
        await link.open()
        view = await eventually(lambda: seen(feed, duplicates=1))
        assert (view["state"], view["taken"]) == ("connected", 7)
        assert view["reconnects"] >= 2
        write(server, "9", "-", at=now + 8)
        await eventually(lambda: rows_have(feed, now, 8))
        expected[moment(now + 8)] = {"a": 9.0, "b": 7.0}
        assert await rows(feed) == expected
        record = next(row for row in await feed.samples("table") if row["sequence"] == moment(now + 8))
        assert (record["stream_id"], record["tags"]) == ("plc", ["press"])
        assert datetime.fromisoformat(record["captured_at"]) == datetime.fromtimestamp(now + 8, UTC)
    await link.cut()


def moment(seconds: float) -> int:
    return round(seconds * 1_000_000)


async def rows_have(feed: Feeding, now: float, n: int) -> bool:
    return moment(now + n) in {record["sequence"] for record in await feed.samples("table")}


async def refused(feed: Feeding) -> bool:
    return "Connect call failed" in ((await feed.source("plc", "table"))["reason"] or "")


async def down(feed: Feeding) -> Any:
    view = await feed.source("plc", "table")
    return view if view["state"] in ("retrying", "connecting") and view["reason"] else None


async def test_a_restart_reads_the_same_moments_as_the_same_samples(
    tmp_path: Path, monkeypatch: Any, running: tuple[int, Server]
) -> None:
    (port, server), ports = running, real_time()
    write(server, "1", "2", at=time.time() - 10)
    for _ in range(2):
        async with feeding(tmp_path, monkeypatch, plc(port), ports=ports) as feed:
            view = await eventually(lambda feed=feed: seen(feed))
    assert (view["taken"], view["duplicates"]) == (0, 1)


async def seen(feed: Feeding, duplicates: int = 0) -> Any:
    view = await feed.source("plc", "table")
    return view if view["taken"] + view["duplicates"] and view["duplicates"] >= duplicates else None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodes": {"a": "ns=2;s=a", "b": "ns=2;s=not"}}, "the server has no tag ns=2;s=not (BadNodeIdUnknown)"),
        ({"nodes": {"a": "ns=2;s=a", "b": "ns=2;s=a"}}, "two columns have the same node"),
        ({"nodes": {"a": "what"}}, "what"),
    ],
)
async def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: Any, running: tuple[int, Server], change: Any, words: str
) -> None:
    async with feeding(tmp_path, monkeypatch, plc(running[0], **change)) as feed:

        async def said() -> bool:
            return words in ((await feed.source("plc", "table"))["reason"] or "")

        await eventually(said)


async def test_the_rate_cap_counts_what_it_drops(tmp_path: Path, monkeypatch: Any, running: tuple[int, Server]) -> None:
    (port, server), now = running, time.time() - 5.0
    write(server, "0", "0", at=now)
    async with feeding(tmp_path, monkeypatch, plc(port, rate=0.1)) as feed:
        await until(feed, state="connected", taken=1)
        for n in range(1, 11):
            write(server, str(n), "-", at=now + n / 10)
        await until(feed, taken=1, dropped={"rate": 10})

        # Somebody who asks for a sample gets the next row all the same.
        async def change() -> None:
            for n in range(20):  # one of them comes after the request
                await asyncio.sleep(0.05)
                write(server, "99", str(n), at=now + 2 + n / 100)

        answer, _ = await asyncio.gather(feed.running.call("POST", "/v1/sources/plc:capture?project=table"), change())
        assert (answer.status_code, answer.json()["trigger"]) == (201, "manual")
