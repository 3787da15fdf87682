"""State and content on every profile: the suites of the ports, over each profile's own stores."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from contract.test_ports import (
    test_a_blob_is_written_once_and_read_back,
    test_a_blob_that_is_gone_is_a_key_error,
    test_many_blobs_at_once_are_each_their_own,
)
from integration import test_state
from integration.test_state import *  # noqa: F403 - all its tests, and the fixture that they need

from services.runtime.blobs import AzureBlobs, blob_store

__all__ = [
    *(name for name in vars(test_state) if name.startswith("test_")),
    "state",  # noqa: F405
    "test_a_blob_is_written_once_and_read_back",
    "test_a_blob_that_is_gone_is_a_key_error",
    "test_many_blobs_at_once_are_each_their_own",
]

pytestmark = [pytest.mark.profiles, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def blobs(probe: Any) -> AsyncIterator[Any]:
    store = blob_store(probe.stack.blobs("probe"))
    yield store
    if isinstance(store, AzureBlobs):
        await store.close()
