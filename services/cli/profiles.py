"""The profiles: which components a stack has, which services run at which place, and what stands behind them here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.cli.runfile import App, RunFile

Profile = Literal["local", "iotedge", "azure"]
Backing = Literal["redis", "servicebus", "postgres", "azurite", "mosquitto", "wan"]

SITE = "edge-1"
PORTS: Mapping[str, Mapping[str, int]] = {
    "redis": {"redis": 8179},
    "servicebus": {"servicebus": 8191},
    "postgres": {"postgres": 8192},
    "azurite": {"azurite": 8193},
    "mosquitto": {"mosquitto": 8194},
    "wan": {"wan_servicebus": 8195, "wan_blobs": 8196},
}
UPLINK = 8106


@dataclass(frozen=True)
class Place:
    """Services that share components: a machine of their own in production, a folder of their own here."""

    name: str  # also the folder's; empty for the only place, which has the home itself
    components: str
    backing: tuple[Backing, ...]
    apps: tuple[str, ...] = ()  # none: all of the run file
    siteid: str | None = None
    control: bool = True  # whether its sidecars have placement and scheduler
    settings: Mapping[str, str] = field(default_factory=dict)

    def folder(self, home: Path) -> Path:
        return home / self.name if self.name else home


PROFILES: Mapping[Profile, tuple[Place, ...]] = {
    "local": (Place("", "local", ("redis",)),),
    "azure": (Place("", "azure", ("servicebus", "postgres", "azurite"), siteid="cloud"),),
    "iotedge": (
        Place(
            "cloud",
            "azure",
            ("servicebus", "postgres", "azurite"),
            apps=("label-queue", "retrain-trigger", "portal"),
            siteid="cloud",
            # What nobody asks about stays at the site, so there is no pool to learn from in the cloud.
            settings={
                "HALFSURE_RETRAIN_TRIGGER_POOL_MOST": "0",
                "HALFSURE_PORTAL_SERVICES": '["label-queue", "retrain-trigger"]',
            },
        ),
        Place(
            "device",
            "iotedge",
            ("redis", "mosquitto", "wan"),
            apps=("ingest", "infer", "select-uncertain", "uplink"),
            siteid=SITE,
            control=False,
            # The project's owner is in the cloud; uplink keeps a copy.
            settings={"HALFSURE_PROJECTS_OWNER": "uplink"},
        ),
    ),
}


def apps_of(profile: Profile, run_file: RunFile) -> tuple[tuple[Place, App], ...]:
    """Each service with its place; `uplink` is of the device alone, so the run file for `dapr run -f` has it not."""
    listed = {app.app_id: app for app in run_file.apps}
    if profile == "iotedge" and "uplink" not in listed:
        listed["uplink"] = _beside(run_file.apps[0], "uplink", UPLINK)
    places = PROFILES[profile]
    return tuple(
        (place, app)
        for place in places
        for app in ((listed[name] for name in place.apps if name in listed) if place.apps else run_file.apps)
    )


def _beside(model: App, app_id: str, port: int) -> App:
    """Another service in the manner of the run file's: its sidecar at + 100, + 200, + 300 and + 400."""
    ports = {"app_port": port, "http_port": port + 100, "grpc_port": port + 200}
    more = {"metrics_port": port + 300, "internal_port": port + 400}
    command = (*model.command[:-1], app_id)
    return model.model_copy(update={"app_id": app_id, "command": command, **ports, **more})
