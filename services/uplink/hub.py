"""IoT Hub by way of the device's edgeHub, with the identity that IoT Edge gives each module."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson
import structlog

from services.runtime.errors import Unavailable

log = structlog.get_logger()


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

        try:
            if self._client is None:
                # It asks the device's security daemon, and waits for the answer.
                self._client = await asyncio.to_thread(IoTHubModuleClient.create_from_edge_environment)
            await self._client.connect()
            self._client.on_connection_state_change = moved
            self._client.on_twin_desired_properties_patch_received = patched
        except Exception as error:  # its errors have no common base
            raise Unavailable(f"edgeHub: {_words(error)}") from error

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
            await self._client.shutdown()

    async def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._client, method)(*arguments)
        except Exception as error:  # its errors have no common base
            raise Unavailable(f"edgeHub: {method}: {_words(error)}") from error


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:300]
