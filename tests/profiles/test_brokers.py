"""One suite for every broker: what the system promises must hold on each, whatever the broker itself does."""

import os
import signal
from typing import Any

import pytest
from conftest import wait_until
from integration.test_delivery import (
    test_a_dropped_message_is_one_dead_letter_and_blocks_nothing,
    test_a_service_that_is_told_to_end_does_so_within_ten_seconds_and_loses_nothing,
    test_events_go_round_in_bulk_and_count_once,
    test_kill_in_the_middle_loses_and_doubles_nothing,
    test_retry_comes_again_and_then_succeeds,
)
from profiles.readback import read_back

__all__ = [
    "test_a_dropped_message_is_one_dead_letter_and_blocks_nothing",
    "test_a_service_that_is_told_to_end_does_so_within_ten_seconds_and_loses_nothing",
    "test_events_go_round_in_bulk_and_count_once",
    "test_kill_in_the_middle_loses_and_doubles_nothing",
    "test_retry_comes_again_and_then_succeeds",
]

pytestmark = [pytest.mark.profiles, pytest.mark.asyncio(loop_scope="module")]


async def test_the_sidecar_has_loaded_what_the_profile_says(probe: Any) -> None:
    loaded, wanted = await read_back(probe.stack, "probe")
    assert loaded == wanted
    assert {"pubsub", "statestore"} <= set(loaded)


async def relayed(probe: Any, names: list[str], seconds: float = 90) -> None:
    async def all_there() -> bool:
        return set(names) <= set((await probe.counts())["relayed"])

    await wait_until(all_there, seconds)


async def test_while_the_broker_does_not_answer_events_wait_in_the_outbox(probe: Any) -> None:
    """Stopped, not killed: the Service Bus stand-in has no disk, and Redis is the state store too."""
    before = (await probe.counts())["total"]
    if "servicebus" not in probe.stack.processes:
        pytest.skip("without its Redis the local profile can take nothing; killing it is a case of its own")
    broker = probe.stack.pid("servicebus")
    os.kill(broker, signal.SIGSTOP)
    names = [f"waiting{n}" for n in range(300)]
    try:
        await probe.withdraw(*names)
        assert (await probe.counts())["total"] == before
    finally:
        os.kill(broker, signal.SIGCONT)
    await relayed(probe, names)
    assert (await probe.counts())["total"] == before + 300


async def test_five_hundred_events_of_two_kilobytes_are_more_than_one_batch_and_all_arrive(probe: Any) -> None:
    before = (await probe.counts())["total"]
    names = [f"large{n}" for n in range(500)]
    await probe.withdraw(*names, who="w" * 2048)
    await relayed(probe, names)
    assert (await probe.counts())["total"] == before + 500


async def test_what_fails_for_ever_ends_on_the_shelf_and_holds_up_nobody(probe: Any) -> None:
    await probe.withdraw("poison-1")
    names = [f"behind{n}" for n in range(100)]
    await probe.withdraw(*names)
    await relayed(probe, names, 60)

    async def shelved() -> list[dict[str, Any]]:
        letters = (await probe.client.get("/v1/deadletters")).json()["items"]
        return [letter for letter in letters if (letter["event"] or {}).get("subject") == "poison-1"]

    (letter,) = await wait_until(shelved, 120)
    assert "gave up" in letter["dlq"]["reason"]
    heard = (await probe.counts())["heard"].count("poison-1")
    assert 2 <= heard <= 60
