"""The deployment manifest of a device: up to date, complete, and refused when anything in it is wrong."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.commands.iotedge import TEMPLATE, wanted
from services.cli.edge.deployment import Images, Unfilled, device, device_apps, fill, manifest, rendered, sidecar
from services.cli.edge.rules import MOST_OPTIONS, MOST_TWIN, faults
from services.cli.home import Home
from services.cli.plan import Plan
from services.cli.ports import plan_ports
from services.cli.settings import StackSettings, default_root
from services.cli.specs import applications

ROOT = default_root()
NEEDS = wanted(ROOT)
Object = dict[str, Any]


@pytest.fixture
def made() -> Object:
    return manifest(NEEDS.run_file, NEEDS.components)


def agent(made: Object) -> Object:
    return made["modulesContent"]["$edgeAgent"]["properties.desired"]


def hub(made: Object) -> Object:
    return made["modulesContent"]["$edgeHub"]["properties.desired"]


def module(made: Object, name: str = "infer") -> Object:
    return agent(made)["modules"][name]


def env(made: Object, name: str = "infer") -> Object:
    return module(made, name)["env"]


def options(name: str, change: Callable[[Object], Any]) -> Callable[[Object], None]:
    """What changes a module's createOptions."""

    def mutate(made: Object) -> None:
        settings = module(made, name)["settings"]
        created = json.loads(settings["createOptions"])
        change(created)
        settings["createOptions"] = json.dumps(created)

    return mutate


def host(change: Callable[[Object], Any], name: str = "infer") -> Callable[[Object], None]:
    return options(name, lambda created: change(created["HostConfig"]))


def flag(name: str, value: str) -> Callable[[Object], Any]:
    def change(created: Object) -> None:
        command = created["Cmd"]
        command[command.index(name) + 1] = value

    return options("daprd-infer", change)


def route(text: Any) -> Callable[[Object], Any]:
    return lambda made: hub(made)["routes"].update(more=text)


def value(name: str, variable: str, text: str) -> Callable[[Object], Any]:
    return lambda made: env(made, name).update({variable: {"value": text}})


def settings(name: str, **fields: Any) -> Callable[[Object], Any]:
    return lambda made: module(made, name)["settings"].update(fields)


# What is done to the manifest, and words of the sentence that refuses it.
MUTANTS: dict[str, tuple[Callable[[Object], Any], str]] = {
    "createOptions is an object": (settings("redis", createOptions={"Cmd": ["x"]}), "is not of type 'string'"),
    "createOptions is not JSON": (settings("redis", createOptions="{'Cmd': 1}"), "redis: createOptions is not JSON"),
    "createOptions is too long": (
        options("redis", lambda created: created.update(Labels={"x": "y" * MOST_OPTIONS})),
        f"IoT Hub takes {MOST_OPTIONS}",
    ),
    "createOptions with an unknown field": (
        options("redis", lambda created: created.update(Command=[])),
        "'Command' was unexpected",
    ),
    "createOptions with an unknown field of the host": (host(lambda own: own.update(Mem=1)), "'Mem' was unexpected"),
    "bind that is not a path": (host(lambda own: own["Binds"].append("data:/data")), "'data:/data' does not match"),
    "status": (lambda made: module(made).update(status="run"), "'run' is not one of"),
    "restartPolicy": (lambda made: module(made).update(restartPolicy="unless-stopped"), "'unless-stopped' is not one"),
    "module's name": (lambda made: agent(made)["modules"].update({"in.fer": module(made)}), "'in.fer' does not match"),
    "unknown field of a module": (lambda made: module(made).update(image="x"), "'image' was unexpected"),
    "unknown field at the top": (lambda made: made.update(modules={}), "'modules' was unexpected"),
    "unknown field of a route": (route({"route": "x", "ttl": 1}), "more"),
    "env that is text": (lambda made: env(made).update(APP_PORT="8080"), "'8080' is not of type 'object'"),
    "env that is a number": (lambda made: env(made).update(APP_PORT={"value": 8080}), "8080 is not of type 'string'"),
    "missing field": (lambda made: module(made).pop("version"), "'version' is a required property"),
    "missing image": (lambda made: module(made)["settings"].pop("image"), "'image' is a required property"),
    "no edgeHub": (lambda made: made["modulesContent"].pop("$edgeHub"), "'$edgeHub' is a required property"),
    "schema of the agent": (lambda made: agent(made).update(schemaVersion="1.0"), "'1.1' was expected"),
    "schema of the hub": (lambda made: hub(made).update(schemaVersion="1.2"), "'1.1' was expected"),
    "runtime out of support": (
        lambda made: agent(made)["systemModules"]["edgeAgent"]["settings"].update(
            image="mcr.microsoft.com/azureiotedge-agent:1.5"
        ),
        "not of the supported runtime 1.6",
    ),
    "what waits is not on disk": (
        lambda made: agent(made)["systemModules"]["edgeHub"].pop("env"),
        "must be on the device's disk",
    ),
    "route from an unknown module": (
        route("FROM /messages/modules/camera/outputs/x INTO $upstream"),
        "route more: no module 'camera' is deployed",
    ),
    "route to an unknown module": (
        route('FROM /messages/modules/uplink/outputs/x INTO BrokeredEndpoint("/modules/portal/inputs/in")'),
        "no module 'portal' is deployed",
    ),
    "route that is none": (route("FROM uplink INTO $upstream"), "is not a route"),
    "route's priority": (route({"route": "FROM /* INTO $upstream", "priority": 10}), "more"),
    "twin of a module that is not deployed": (
        lambda made: made["modulesContent"].update(portal={"properties.desired": {}}),
        "portal: there is a twin",
    ),
    "too many modules": (
        lambda made: agent(made)["modules"].update({f"more-{n}": module(made, "redis") for n in range(41)}),
        "51 modules, and a device takes 50",
    ),
    "too large a twin": (
        lambda made: made["modulesContent"].update(uplink={"properties.desired": {"x": "y" * MOST_TWIN}}),
        f"and a twin takes {MOST_TWIN}",
    ),
    "no module for a service": (lambda made: agent(made)["modules"].pop("infer"), "needs the module 'infer'"),
    "no sidecar for a service": (lambda made: agent(made)["modules"].pop("daprd-infer"), "needs the module 'daprd-in"),
    "no broker of its bus": (
        lambda made: agent(made)["modules"].pop("redis"),
        "HALFSURE_REDIS_HOST names 'redis', and no such module is deployed",
    ),
    "service without a setting": (lambda made: env(made).pop("HALFSURE_BLOBS"), "infer: lacks HALFSURE_BLOBS"),
    "service without one of two endpoints": (
        lambda made: env(made).pop("DAPR_HTTP_ENDPOINT"),
        "infer: lacks DAPR_HTTP_ENDPOINT",
    ),
    "service with another's sidecar": (
        value("infer", "DAPR_GRPC_ENDPOINT", "daprd-ingest:50001"),
        "DAPR_GRPC_ENDPOINT must be daprd-infer:50001",
    ),
    "sidecar without what its components want": (
        lambda made: env(made, "daprd-ingest").pop("HALFSURE_MQTT_URL"),
        "daprd-ingest: lacks HALFSURE_MQTT_URL",
    ),
    "sidecar without any way to the cloud": (
        lambda made: env(made, "daprd-uplink").pop("HALFSURE_SERVICEBUS_NAMESPACE"),
        "daprd-uplink: lacks HALFSURE_SERVICEBUS_",
    ),
    "tokens that differ": (value("infer", "APP_API_TOKEN", "${OTHER}"), "must have the same APP_API_TOKEN"),
    "sidecar of another service": (flag("--app-id", "ingest"), "--app-id must be infer, and is ingest"),
    "sidecar looks on loopback": (flag("--app-channel-address", "127.0.0.1"), "--app-channel-address must be infer"),
    "sidecar looks at another port": (flag("--app-port", "8081"), "--app-port must be 8080"),
    "secret in clear text": (value("infer", "DAPR_API_TOKEN", "hunter2"), "DAPR_API_TOKEN is a secret in clear text"),
    "connection string in clear text": (
        value("daprd-uplink", "BUS", "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKey=abc"),
        "BUS is a secret in clear text",
    ),
    "connection string for the twin": (
        value("daprd-uplink", "HALFSURE_SERVICEBUS_CONNECTION", "${HALFSURE_SERVICEBUS_CONNECTION}"),
        "HALFSURE_SERVICEBUS_CONNECTION would be a secret in the device's twin",
    ),
    "client secret for the twin": (
        value("uplink", "AZURE_CLIENT_SECRET", "${AZURE_CLIENT_SECRET}"),
        "AZURE_CLIENT_SECRET would be a secret in the device's twin",
    ),
    "signature for the twin": (
        value("uplink", "HALFSURE_CLOUD_BLOBS", "https://x.blob.core.windows.net/c?sv=1&sig=abc"),
        "HALFSURE_CLOUD_BLOBS is a secret in clear text",
    ),
    "sidecar without its certificate": (
        lambda made: env(made, "daprd-uplink").pop("HALFSURE_ENTRA_CERTIFICATE"),
        "daprd-uplink: lacks HALFSURE_ENTRA_CERTIFICATE",
    ),
    "models that nobody signed": (
        lambda made: env(made).pop("HALFSURE_INFER_MODEL_KEYS"),
        "infer: lacks HALFSURE_INFER_MODEL_KEYS",
    ),
    "keys that stay outside": (
        host(lambda own: own.update(Binds=[bind for bind in own["Binds"] if "model-keys" not in bind])),
        "HALFSURE_INFER_MODEL_KEYS names /etc/halfsure/model-keys.pem, and no file",
    ),
    "signature in a url": (value("infer", "MODELS", "https://x.net/m?sv=1&sig=abc"), "MODELS is a secret"),
    "password in a url": (value("infer", "BROKER", "tcp://me:secret@10.0.0.1:1883"), "BROKER is a secret"),
    "secret in createOptions": (
        options("redis", lambda created: created.update(Cmd=["x", "--at=AccountKey=abc"])),
        "redis: there is a secret in its createOptions",
    ),
    "registry's password": (
        lambda made: agent(made)["runtime"]["settings"]["registryCredentials"]["services"].update(password="abc"),
        "its password is in clear text",
    ),
    "signature in a twin": (
        lambda made: made["modulesContent"].update(
            uplink={"properties.desired": {"model": {"uri": "https://x.net/m?sig=abc"}}}
        ),
        "uplink: there is a secret in its twin",
    ),
    "privileged": (host(lambda own: own.update(Privileged=True)), "infer: must have no privileges"),
    "capabilities": (host(lambda own: own.update(CapAdd=["NET_ADMIN"])), "infer: must have no privileges"),
    "writable root": (host(lambda own: own.pop("ReadonlyRootfs")), "infer: needs a read-only root"),
    "new privileges": (host(lambda own: own.pop("SecurityOpt"), "redis"), "redis: needs SecurityOpt"),
    "the host's network": (host(lambda own: own.update(NetworkMode="host")), "must be on the device's container"),
    "Docker's socket": (
        host(lambda own: own["Binds"].append("/var/run/docker.sock:/var/run/docker.sock")),
        "must not have the device's /var/run/docker.sock",
    ),
    "root": (options("infer", lambda created: created.update(User="0:0")), "infer: must not run as root"),
    "no limits": (host(lambda own: own.pop("Memory")), "infer: needs limits"),
    "moving tag": (settings("infer", image="registry.example/infer:latest"), "needs a fixed tag"),
    "no tag": (settings("infer", image="registry.example:5000/infer"), "needs a fixed tag"),
    "port given twice": (
        host(lambda own: own["PortBindings"].update({"8080/tcp": [{"HostPort": "8101"}]})),
        "port 8101/tcp of the device is given to 2 modules",
    ),
}


def test_the_template_is_up_to_date_and_in_order(made: Object) -> None:
    text = (ROOT / TEMPLATE).read_text()
    assert text == rendered(made), f"halfsure iotedge manifest > {TEMPLATE}"
    assert faults(json.loads(text), NEEDS) == []


def test_it_lists_what_the_services_need(made: Object) -> None:
    apps = [app.app_id for app in device_apps(NEEDS.run_file)]
    assert apps == ["ingest", "infer", "select-uncertain", "uplink"]
    assert set(agent(made)["modules"]) == {"redis", "mosquitto", *apps, *map(sidecar, apps)}
    [(name, given)] = hub(made)["routes"].items()
    assert (name, given["timeToLiveSecs"]) == ("model-status", 14 * 86_400)
    assert hub(made)["storeAndForwardConfiguration"] == {"timeToLiveSecs": 14 * 86_400}


def test_a_service_finds_all_that_the_supervisor_gives_it(
    made: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("HALFSURE_", "APP_", "DAPR_"))]:
        monkeypatch.delenv(name)
    stack = StackSettings(profile="iotedge", home=tmp_path)
    home = Home(tmp_path)
    plan = Plan(stack, NEEDS.run_file, plan_ports(NEEDS.run_file, stack), home, home.secrets(), tmp_path)
    # The ports say what the endpoints say; the rest is the sidecars', and of processes on one machine.
    others = {"DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_HOST_IP"} | {"GOGC", "PYTHONUNBUFFERED"}
    others |= {"HALFSURE_REDIS_HOST", "HALFSURE_MQTT_URL", "HALFSURE_SERVICEBUS_CONNECTION", "HALFSURE_CLOUD_BLOBS"}
    for spec in applications(plan):
        if spec.name in device().apps:
            ours = {key for key in spec.env if key.startswith(("HALFSURE_", "APP_", "DAPR_"))} - others
            assert ours <= set(env(made, spec.name)), spec.name
    assert "HALFSURE_CLOUD_BLOBS" in env(made, "uplink")


def test_the_configuration_is_that_of_the_other_sidecars_but_for_names() -> None:
    ours, theirs = (
        yaml.safe_load((ROOT / path).read_text()) for path in ("deploy/iotedge/config.yaml", "dapr/config.yaml")
    )
    assert ours["spec"].pop("nameResolution")["configuration"] == {"format": "daprd-{appid}:50002"}
    theirs["spec"].pop("nameResolution")
    assert ours == theirs


def test_images_come_from_where_one_says() -> None:
    made = manifest(NEEDS.run_file, NEEDS.components, Images("registry.example", "1.2.3"))
    assert module(made)["settings"]["image"] == "registry.example/halfsure/infer:1.2.3"
    assert faults(made, NEEDS) == []


def test_placeholders_are_filled_whatever_is_in_their_values(made: Object) -> None:
    text = rendered(made)
    with pytest.raises(Unfilled, match="APP_API_TOKEN, DAPR_API_TOKEN, HALFSURE_CLOUD_BLOBS"):
        fill(text, {"TAG": "1"})
    names = {name.split("}")[0] for name in text.split("${")[1:]}
    filled = json.loads(fill(text, {name: 'a"b\\1' for name in names}))
    assert env(filled)["DAPR_API_TOKEN"] == {"value": 'a"b\\1'}


@pytest.mark.parametrize("name", MUTANTS)
def test_what_is_wrong_is_refused_with_a_sentence(made: Object, name: str) -> None:
    mutate, words = MUTANTS[name]
    mutant = copy.deepcopy(made)
    mutate(mutant)
    found = faults(mutant, NEEDS)
    assert any(words in fault for fault in found), found


@pytest.mark.parametrize("document", [None, [], "text", 7, {}, {"modulesContent": []}, {"modulesContent": {}}])
def test_what_is_no_manifest_is_refused(document: Any) -> None:
    assert faults(document, NEEDS)
