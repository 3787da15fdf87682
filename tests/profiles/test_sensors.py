"""The way in from a site's sensors: a real mosquitto, Dapr's MQTT binding, ingest; what holds on buses holds here."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from conftest import require_runtime, wait_until
from paho.mqtt.publish import multiple
from profiles.readback import read_back
from worlds import SPECS, png

from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.contracts.ids import sha256

pytestmark = [pytest.mark.profiles, pytest.mark.asyncio(loop_scope="module")]

OFFSET = 16_000
PROJECT = {
    "name": "yard",
    "task": "image-classification",
    "labels": ["day", "night"],
    "input": SPECS["image"].model_dump(mode="json"),
}


class Site:
    """The device of the iotedge profile, and what its sensors send."""

    def __init__(self, stack: Stack, client: httpx2.AsyncClient) -> None:
        self.stack = stack
        self._client = client

    async def get(self, app_id: str, path: str, **params: Any) -> httpx2.Response:
        return await self._client.get(self.stack.url(app_id) + path, params={"project": "yard", **params})

    async def make_project(self) -> None:
        answer = await self._client.post(self.stack.url("retrain-trigger") + "/v1/projects", json=PROJECT)
        assert answer.status_code == 201, answer.text

        async def known() -> bool:
            return (await self.get("ingest", "/v1/samples")).status_code == 200

        await wait_until(known, 60)

    async def send(self, payloads: Sequence[bytes], stream: str) -> None:
        """At least once, as a sensor would; the broker has them when this returns."""
        port = self.stack.ports["mosquitto"]
        messages = [{"topic": f"halfsure/yard/{stream}", "payload": payload, "qos": 1} for payload in payloads]
        await asyncio.to_thread(multiple, messages, hostname="127.0.0.1", port=port, client_id=f"sensor-{stream}")

    async def samples(self, stream: str) -> list[str]:
        """The hashes of a stream's samples."""
        found: list[str] = []
        params: dict[str, Any] = {"stream": stream, "limit": 200}
        while True:
            answer = await self.get("ingest", "/v1/samples", **params)
            if answer.status_code != 200:
                return []
            page = answer.json()
            found += [item["content"]["sha256"] for item in page["items"]]
            if not page["cursor"]:
                return found
            params["cursor"] = page["cursor"]

    async def all_there(self, payloads: Sequence[bytes], stream: str, seconds: float) -> None:
        wanted = sorted({sha256(payload) for payload in payloads})

        async def there() -> bool:
            return set(await self.samples(stream)) >= set(wanted)

        await wait_until(there, seconds)
        assert sorted(await self.samples(stream)) == wanted


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    require_runtime()
    settings = StackSettings(profile="iotedge", home=tmp_path_factory.mktemp("site"), port_offset=OFFSET)
    async with Stack(settings).running() as stack:
        headers = {"authorization": f"Bearer {stack.token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as client:
            site = Site(stack, client)
            await site.make_project()
            yield site


def pictures(start: int) -> list[bytes]:
    return [png(start % 250, n) for n in range(100)]


@pytest.mark.parametrize("app_id", ["ingest", "infer", "uplink", "label-queue", "retrain-trigger"])
async def test_each_sidecar_has_loaded_what_its_place_says(site: Site, app_id: str) -> None:
    loaded, wanted = await read_back(site.stack, app_id)
    assert loaded == wanted
    assert ("cloud" in loaded, "sensors" in loaded) == (app_id == "uplink", app_id == "ingest")


async def test_each_picture_is_a_sample_once_however_often_it_is_sent(site: Site) -> None:
    sent = pictures(1)
    await site.send([*sent, *sent, *sent[::-1]], "twice")
    await site.all_there(sent, "twice", 60)


async def test_what_can_never_be_a_sample_is_put_aside_and_holds_up_nobody(site: Site) -> None:
    """Forty, twice as many as a broker sends before it waits for an answer."""
    refused, sent = [b"no picture %d" % n for n in range(40)], pictures(2)
    await site.send([*refused, *sent], "refused")
    await site.all_there(sent, "refused", 60)

    async def shelved() -> int:
        letters = (await site.get("ingest", "/v1/deadletters", limit=200)).json()["items"]
        return len(letters) >= 40

    await wait_until(shelved, 30)


@pytest.mark.parametrize("victim", ["ingest", "ingest-sidecar", "redis"])
async def test_kill_in_the_middle_loses_and_doubles_nothing(site: Site, victim: str) -> None:
    sent = pictures(len(victim))
    await site.send(sent[:40], victim)
    site.stack.kill(victim)
    await site.send(sent[40:70], victim)
    await site.stack.wait_ready(victim, 60)
    await site.send(sent[70:], victim)
    await site.all_there(sent, victim, 120)


async def test_a_broker_that_was_away_is_found_again(site: Site) -> None:
    sent = pictures(99)
    await site.send(sent[:50], "away")
    await site.all_there(sent[:50], "away", 60)
    site.stack.kill("mosquitto")
    await site.stack.wait_ready("mosquitto", 60)
    await site.send(sent[50:], "away")
    await site.all_there(sent, "away", 120)
