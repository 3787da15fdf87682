"""IoT Hub by way of the device's edgeHub, with the identity that IoT Edge gives each module."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson

from services.runtime.errors import Unavailable

PATIENCE = 10.0  # seconds for an answer; edgeHub is on the same device


class Hub(Protocol):
    """What steering needs of IoT Hub. Everything raises Unavailable while there is no connection."""

    async def connect(self, changed: Callable[[], None]) -> None:
        """`changed` is called, from any thread, when the desired properties may be others than before."""
        ...

    async def desired(self) -> Mapping[str, Any]:
        """All desired properties, `$version` among them."""
        ...

    async def report(self, properties: Mapping[str, Any]) -> None: ...

    async def say(self, output: str, content: Mapping[str, Any]) -> None:
        """A message to IoT Hub; edgeHub keeps it while the device is offline."""
        ...

    async def close(self) -> None: ...


class IotHub:
    """The module client of the device SDK, in the environment that IoT Edge makes."""

    def __init__(self) -> None:
        self._client: Any = None

    async def connect(self, changed: Callable[[], None]) -> None:
        from azure.iot.device.aio import IoTHubModuleClient

        async def patched(_: Any) -> None:
            changed()

        async def moved() -> None:
            # Patches that came while there was no connection are not repeated.
            if self._client is not None and self._client.connected:
                changed()

        def listen(client: Any) -> None:
            client.on_connection_state_change = moved
            client.on_twin_desired_properties_patch_received = patched

        async def connect() -> None:
            if self._client is None:
                # It asks the device's security daemon, and waits for the answer; so do subscriptions.
                self._client = await asyncio.to_thread(IoTHubModuleClient.create_from_edge_environment)
            await self._client.connect()
            await asyncio.to_thread(listen, self._client)

        await self._within("connect", connect())

    async def desired(self) -> Mapping[str, Any]:
        return (await self._ask("get_twin"))["desired"]

    async def report(self, properties: Mapping[str, Any]) -> None:
        await self._ask("patch_twin_reported_properties", dict(properties))

    async def say(self, output: str, content: Mapping[str, Any]) -> None:
        from azure.iot.device import Message

        message = Message(orjson.dumps(content).decode(), content_encoding="utf-8", content_type="application/json")
        await self._ask("send_message_to_output", message, output)

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.shutdown(), PATIENCE)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        if self._client is None:
            raise Unavailable("edgeHub: not connected")
        return await self._within(method, getattr(self._client, method)(*arguments))

    async def _within(self, what: str, work: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(PATIENCE):
                return await work
        except TimeoutError as error:
            # The client reconnects by itself, but never subscribes again: after an edgeHub that has forgotten the
            # session it would wait for ever. The next connection is made by a new one.
            await self.close()
            raise Unavailable(f"edgeHub: {what}: no answer within {PATIENCE:.0f} s") from error
        except Exception as error:  # its errors have no common base
            raise Unavailable(f"edgeHub: {what}: {_words(error)}") from error


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:300]
