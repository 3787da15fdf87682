"""What the system promises, on the real broker: at least once, effect once, retry, dead letter, crash."""

import signal

import psutil
import pytest
from conftest import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

STATE_STORES = {"redis", "postgres"}


async def test_events_go_round_in_bulk_and_count_once(probe) -> None:
    before = (await probe.counts())["total"]
    names = [f"a{n}" for n in range(500)]
    await probe.withdraw(*names)
    await probe.withdraw(*names)

    async def all_relayed() -> bool:
        return set(names) <= set((await probe.counts())["relayed"])

    await wait_until(all_relayed, 30)
    assert (await probe.counts())["total"] == before + 500


async def test_retry_comes_again_and_then_succeeds(probe) -> None:
    await probe.withdraw("retry-1")

    async def relayed() -> bool:
        return "retry-1" in (await probe.counts())["relayed"]

    await wait_until(relayed, 30)


async def test_a_dropped_message_is_one_dead_letter_and_blocks_nothing(probe) -> None:
    await probe.withdraw("drop-1", "b1")

    async def shelved() -> list[dict]:
        return (await probe.client.get("/v1/deadletters")).json()["items"]

    letters = await wait_until(shelved, 30)
    (letter,) = [letter for letter in letters if letter["event"]["data"]["sample_id"] == "drop-1"]
    assert letter["dlq"]["reason"] == "the name says so"

    async def after() -> bool:
        return "b1" in (await probe.counts())["relayed"]

    await wait_until(after, 30)


@pytest.mark.parametrize("victim", ["probe", "probe-sidecar", "state store"])
async def test_kill_in_the_middle_loses_and_doubles_nothing(probe, victim: str) -> None:
    before = (await probe.counts())["total"]
    names = [f"{victim}{n}" for n in range(400)]
    await probe.withdraw(*names[:200])
    (process,) = STATE_STORES & probe.stack.processes.keys() if victim == "state store" else {victim}
    probe.stack.kill(process)
    await probe.stack.wait_ready(process, 60)

    async def answers() -> bool:
        return (await probe.counts())["total"] >= before

    await wait_until(answers, 60)
    await probe.stack.wait_ready("probe")
    await probe.withdraw(*names[200:])

    async def all_relayed() -> bool:
        return set(names) <= set((await probe.counts())["relayed"])

    await wait_until(all_relayed, 120)
    assert (await probe.counts())["total"] == before + 400


async def test_a_service_that_is_told_to_end_does_so_within_ten_seconds_and_loses_nothing(probe) -> None:
    """Row 2.18: SIGTERM in the middle of a stream, told from outside, as a container's runtime would."""
    before = (await probe.counts())["total"]
    names = [f"term{n}" for n in range(100)]
    await probe.withdraw(*names)
    pid = probe.stack.supervisor.kill("probe", signal.SIGTERM)
    await wait_until(lambda: not psutil.pid_exists(pid), 10)
    await wait_until(lambda: probe.stack.pid("probe") not in (None, pid), 30)
    await probe.stack.wait_ready("probe", 60)

    async def all_relayed() -> bool:
        return set(names) <= set((await probe.counts())["relayed"])

    # What its sidecar had in hand comes again after a good minute, a hundred at a time.
    await wait_until(all_relayed, 120)
    assert (await probe.counts())["total"] == before + 100
