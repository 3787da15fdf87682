"""The state port over Dapr and Redis, and in memory: one suite for both."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from conftest import wait_until
from dapr.conf import settings as dapr_settings

from services.runtime.dapr_ports import DaprState, connect
from services.runtime.errors import Conflict
from services.runtime.memory import MemoryState
from services.runtime.ports import CREATE, Delete, Put

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(params=["memory", "dapr"], loop_scope="module", scope="module")
async def state(request: pytest.FixtureRequest, probe: Any) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryState()
        return
    ports = probe.stack.ports
    dapr_settings.DAPR_HTTP_ENDPOINT = f"http://127.0.0.1:{ports['probe_http']}"
    dapr_settings.DAPR_GRPC_ENDPOINT = f"127.0.0.1:{ports['probe_grpc']}"
    dapr_settings.DAPR_API_TOKEN = probe.stack.secrets.dapr_api
    client = await connect()
    yield DaprState(client, "statestore")
    await client.close()


def key() -> str:
    return f"k:{uuid.uuid4().hex}"


async def test_what_is_written_is_read_in_bulk_and_what_is_not_there_is_left_out(state: Any) -> None:
    a, b, c = key(), key(), key()
    await state.commit([Put(a, {"n": 1}), Put(b, {"text": "ä\n"})])
    found = await state.get([a, b, c])
    assert {name: entry.value for name, entry in found.items()} == {a: {"n": 1}, b: {"text": "ä\n"}}
    await state.commit([Delete(a), Delete(c)])
    assert set(await state.get([a, b])) == {b}


async def test_a_stale_etag_is_a_conflict_and_changes_nothing_of_that_record(state: Any) -> None:
    a = key()
    await state.commit([Put(a, {"n": 1})])
    first = (await state.get([a]))[a]
    await state.commit([Put(a, {"n": 2}, first.etag)])
    with pytest.raises(Conflict):
        await state.commit([Put(a, {"n": 3}, first.etag)])
    assert (await state.get([a]))[a].value == {"n": 2}


async def test_create_is_for_new_keys_only(state: Any) -> None:
    a = key()
    await state.commit([Put(a, {"n": 1}, CREATE)])
    with pytest.raises(Conflict):
        await state.commit([Put(a, {"n": 2}, CREATE)])
    entry = (await state.get([a]))[a]
    assert entry.value == {"n": 1}
    await state.commit([Put(a, {"n": 3}, entry.etag)])
    assert (await state.get([a]))[a].value == {"n": 3}


async def test_four_hundred_operations_are_one_transaction(state: Any) -> None:
    names = [key() for _ in range(400)]
    await state.commit([Put(name, {"n": n}) for n, name in enumerate(names)])
    assert len(await state.get(names)) == 400


async def test_a_record_with_a_ttl_is_gone_after_it(state: Any) -> None:
    a = key()
    await state.commit([Put(a, {"n": 1}, ttl=1)])
    assert await state.get([a])

    async def gone() -> bool:
        return not await state.get([a])

    await wait_until(gone, 5)
