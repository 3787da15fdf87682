"""A cloud, sites and people, each on a host of its own; a site's link to the cloud can be cut and narrowed."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from edge.hosts import ROOT, Hosts, end
from edge.network import Network

from services.cli.backing import CONTAINER, container_url, servicebus_connection
from services.cli.profiles import PROFILES, UPLINK
from services.cli.rest import Rest
from services.cli.runfile import read_run_file

OFFICE = "10.79.2.2"  # the cloud as people reach it
IN_CLOUD = next(place.apps for place in PROFILES["iotedge"] if place.name == "cloud")
AT_SITE = next(place.apps for place in PROFILES["iotedge"] if place.name == "device")
PORTS = {app.app_id: app.app_port for app in read_run_file(ROOT / "dapr/dapr.yaml").apps} | {"uplink": UPLINK}


@dataclass(frozen=True)
class Site:
    """A site's name, which is its host's, and its number."""

    name: str
    number: int

    @property
    def link(self) -> str:
        return f"wan{self.number}"

    @property
    def address(self) -> str:
        """As people reach it."""
        return f"10.79.{30 + self.number}.2"

    @property
    def cloud(self) -> str:
        """The cloud as the site reaches it."""
        return f"10.79.{10 + self.number}.1"


class Sites(Hosts):
    """The cloud is up first; a site when it is asked for."""

    def __init__(self, folder: Path, closing: contextlib.ExitStack, names: Sequence[str], **environment: str) -> None:
        """`environment` is that of the cloud besides."""
        network = Network(f"hs{os.getpid()}-")
        closing.callback(network.close)
        super().__init__(network, folder, closing)
        self._processes: dict[str, Any] = {}
        self.sites = {name: Site(name, number) for number, name in enumerate(names)}
        for host in ("people", "cloud", *names):
            network.add(host, forwards=True)
        network.link("office", "people", "10.79.2.1/24", "cloud", f"{OFFICE}/24")
        for site in self.sites.values():
            network.link(site.link, "cloud", f"{site.cloud}/24", site.name, f"10.79.{10 + site.number}.2/24")
            network.link(
                f"road{site.number}", "people", f"10.79.{30 + site.number}.1/24", site.name, f"{site.address}/24"
            )
        (folder / "cloud").mkdir()
        (folder / "cloud/environment.json").write_text(json.dumps(environment))
        self._cloud = self.place("cloud", "cloud", *(word for name in names for word in ("--site", name)))()
        self._seen = folder / "crossed.ndjson"
        self._seen.touch()
        port = str(self._cloud["ports"]["servicebus"])
        self.start("cloud", "witness", sys.executable, str(ROOT / "tests/edge/witness.py"), port, str(self._seen))

    def open(self, *names: str, **environment: str) -> None:
        """Sites, up and ready, with this besides in their environment."""
        for name, up in {name: self._open(name, environment) for name in names}.items():
            self._processes[name] = up()["process"]

    def _open(self, name: str, environment: dict[str, str]) -> Callable[[], dict[str, Any]]:
        site, home, ports = self.sites[name], self.folder / name, self._cloud["ports"]
        home.mkdir()
        blobs = container_url(ports["azurite"]).replace("127.0.0.1", site.cloud)
        given = {
            "HALFSURE_SITEID": name,
            "HALFSURE_SERVICEBUS_CONNECTION": servicebus_connection(ports["servicebus"]).replace(
                "127.0.0.1", site.cloud
            ),
            "HALFSURE_CLOUD_BLOBS": f"{blobs}?{self._cloud['signature']}",
            "HALFSURE_TOKENS": str(self.folder / "cloud/tokens.json"),
            "HALFSURE_INFER_MODEL_KEYS": str(self.folder / "cloud/model-key.pub"),
            **environment,
        }
        (home / "environment.json").write_text(json.dumps(given))
        return self.place("device", name)

    def close(self, name: str) -> None:
        """End what runs at a site, for good."""
        end(self._processes.pop(name))

    # What people and the link do.

    @contextlib.contextmanager
    def people(self) -> Iterator[None]:
        """Be on the people's host."""
        with self.network.entered("people"):
            yield

    def rest(self, name: str, project: str) -> Rest:
        """The REST API of the cloud's services, and of those at this site."""
        address = self.sites[name].address

        def url(app_id: str) -> str:
            return f"http://{OFFICE if app_id in IN_CLOUD else address}:{PORTS[app_id]}"

        return Rest(url, self._cloud["token"], project)

    def cut(self, name: str) -> None:
        self.network.cut(self.sites[name].link, name)

    def mend(self, name: str) -> None:
        self.network.mend(self.sites[name].link, name)

    def narrow(self, name: str, bits: int) -> None:
        """Both ways."""
        for host in (name, "cloud"):
            self.network.narrow(self.sites[name].link, host, bits)

    def widen(self, name: str) -> None:
        for host in (name, "cloud"):
            self.network.widen(self.sites[name].link, host)

    # What is in the cloud.

    def crossed(self, kind: str) -> list[dict[str, Any]]:
        """The envelopes of a type that came up, in their order."""
        lines = self._seen.read_text().splitlines()
        return [envelope for envelope in map(json.loads, lines) if envelope["type"] == kind]

    def wire(self) -> str:
        """All that came up, as it is written."""
        return self._seen.read_text()

    async def contents(self, prefix: str) -> set[str]:
        """The names of what the cloud's blob store holds; to be asked by people."""
        base = container_url(self._cloud["ports"]["azurite"]).replace("127.0.0.1", OFFICE)
        names, marker = set[str](), ""
        async with httpx2.AsyncClient(trust_env=False) as http:
            while True:
                query = f"restype=container&comp=list&prefix={prefix}&marker={marker}&{self._cloud['signature']}"
                answer = await http.get(f"{base}?{query}")
                assert answer.status_code == 200, f"{CONTAINER}: {answer.text}"
                names |= set(re.findall("<Name>([^<]+)</Name>", answer.text))
                if not (more := re.search("<NextMarker>([^<]+)</NextMarker>", answer.text)):
                    return names
                marker = more[1]

    async def dead_letters(self, rest: Rest, apps: Sequence[str] = (*AT_SITE, *IN_CLOUD)) -> list[dict[str, Any]]:
        found = [await rest.everything(app, "/v1/deadletters") for app in apps if app != "portal"]
        return [letter for letters in found for letter in letters]
