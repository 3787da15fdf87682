"""What runs where in each profile, and with what in its environment."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from services.cli.home import Home
from services.cli.plan import Plan
from services.cli.ports import plan_ports
from services.cli.process import ProcessSpec
from services.cli.profiles import PROFILES, Profile
from services.cli.runfile import read_run_file
from services.cli.settings import StackSettings, default_root
from services.cli.specs import applications

ROOT = default_root()
EVERY = {"ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger", "portal"}


def specs(profile: Profile, folder: Path) -> dict[str, ProcessSpec]:
    settings = StackSettings(profile=profile, home=folder)
    run_file = read_run_file(settings.run_file_path)
    home = Home(folder)
    home.create([place.name for place in PROFILES[profile]])
    plan = Plan(settings, run_file, plan_ports(run_file, settings), home, home.secrets(), Path("bin"))
    return {spec.name: spec for spec in applications(plan)}


def resources(spec: ProcessSpec) -> set[str]:
    flags = zip(spec.command, spec.command[1:], strict=False)
    return {str(Path(value).relative_to(ROOT)) for flag, value in flags if flag == "--resources-path"}


@pytest.mark.parametrize("profile", get_args(Profile))
def test_every_service_runs_once_beside_the_components_of_its_place(profile: Profile, tmp_path: Path) -> None:
    found = specs(profile, tmp_path)
    services = {name for name in found if not name.endswith("-sidecar")}
    assert services == (EVERY | {"uplink"} if profile == "iotedge" else EVERY)
    for place in PROFILES[profile]:
        for name in place.apps or EVERY:
            assert resources(found[f"{name}-sidecar"]) == {f"components/{place.components}", "dapr"}
            assert found[f"{name}-sidecar"].cwd == place.folder(tmp_path)


@pytest.mark.parametrize("profile", get_args(Profile))
def test_what_the_components_ask_of_the_environment_is_given_where_a_server_stands_behind(
    profile: Profile, tmp_path: Path
) -> None:
    """In production one of a pair is given (a namespace or a connection string), and Entra and the vault's name."""
    found = specs(profile, tmp_path)
    only_in_azure = {"HALFSURE_SERVICEBUS_NAMESPACE", "HALFSURE_POSTGRES_ENTRA", "HALFSURE_KEY_VAULT"}
    only_in_azure |= {f"HALFSURE_ENTRA_{part}" for part in ("TENANT", "CLIENT", "CERTIFICATE")}
    for place in PROFILES[profile]:
        for file in (ROOT / "components" / place.components).glob("*.yaml"):
            for document in yaml.safe_load_all(file.read_text()):
                if document.get("kind") != "Component":
                    continue
                asked = {entry["envRef"] for entry in document["spec"]["metadata"] if "envRef" in entry}
                for name in document.get("scopes") or place.apps or EVERY:
                    assert asked - only_in_azure <= found[f"{name}-sidecar"].env.keys(), file


def test_a_device_knows_nothing_of_the_cloud_but_the_way_up(tmp_path: Path) -> None:
    found = specs("iotedge", tmp_path)
    for name in ("ingest", "infer", "select-uncertain", "uplink"):
        env, flags = found[name].env, found[f"{name}-sidecar"].command
        assert env["HALFSURE_SITEID"] == "edge-1"
        assert env["HALFSURE_PROJECTS_OWNER"] == "uplink"
        assert env["HALFSURE_BLOBS"].startswith("file://")
        assert "HALFSURE_POSTGRES_CONNECTION" not in env
        assert "--placement-host-address" not in flags
    for name in ("label-queue", "retrain-trigger"):
        assert "HALFSURE_REDIS_HOST" not in found[name].env
        assert found[name].env["HALFSURE_BLOBS"].startswith("http://")
        assert "--placement-host-address" in found[f"{name}-sidecar"].command


def test_the_services_are_the_same_programs_in_every_profile(tmp_path: Path) -> None:
    commands = [
        {name: spec.command for name, spec in specs(profile, tmp_path / profile).items() if name in EVERY}
        for profile in get_args(Profile)
    ]
    assert commands[0] == commands[1] == commands[2]
