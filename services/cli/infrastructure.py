"""The process specs of what stands behind the services: the profile's servers, placement, scheduler and sentry."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from services.cli import authority
from services.cli import backing as servers
from services.cli.plan import BACKING_STAGE, CONTROL_STAGE, LOOPBACK, Plan, environment
from services.cli.process import ProcessSpec, Readiness
from services.cli.profiles import PORTS, SITE, Backing
from services.cli.redis import find_redis_server, redis_command, split_host
from services.cli.toolchain import find_sentry


def infrastructure(plan: Plan) -> list[ProcessSpec]:
    """The servers behind the profile (but no Redis if a running one is configured), placement and scheduler."""
    backing = [
        _BACKING[name](plan, place.folder(plan.home.path))
        for place in plan.places
        for name in place.backing
        if name != "redis" or not plan.settings.redis_host
    ]
    return [*backing, *([_sentry(plan)] if plan.settings.mtls else []), _placement(plan), _scheduler(plan)]


def external_redis(plan: Plan) -> tuple[str, int] | None:
    """Host and port of the Redis that is not ours to start, if one is configured."""
    return split_host(plan.settings.redis_host) if plan.settings.redis_host else None


def _server(
    plan: Plan, name: str, command: tuple[str, ...], folder: Path, ready: Readiness | None = None
) -> ProcessSpec:
    ports = {port: plan.ports[port] for port in PORTS[name]}
    port = next(iter(ports.values()))
    return ProcessSpec(
        name=name,
        command=command,
        stage=BACKING_STAGE,
        cwd=folder,
        env=environment({}),
        readiness=ready or Readiness(tcp=(LOOPBACK, port)),
        log=plan.home.logs / f"{name}.log",
        ports=ports,
        url=f"{LOOPBACK}:{port}",
    )


def _redis(plan: Plan, folder: Path) -> ProcessSpec:
    port = plan.ports["redis"]
    command = redis_command(find_redis_server(), port, folder / "redis")
    return replace(
        _server(plan, "redis", command, folder, Readiness(redis=(LOOPBACK, port))), url=f"redis://{LOOPBACK}:{port}"
    )


def _servicebus(plan: Plan, folder: Path) -> ProcessSpec:
    servers.need_proton()
    subscriptions = plan.run_file.path.with_name("subscriptions.yaml")
    module = (sys.executable, "-m", "services.standins.servicebus")
    command = (*module, "--port", str(plan.ports["servicebus"]), "--subscriptions", str(subscriptions), "--site", SITE)
    return _server(plan, "servicebus", command, folder)


def _postgres(plan: Plan, folder: Path) -> ProcessSpec:
    return _server(
        plan, "postgres", servers.postgres_command(servers.find_postgres(), plan.ports["postgres"], folder), folder
    )


def _azurite(plan: Plan, folder: Path) -> ProcessSpec:
    port = plan.ports["azurite"]
    command = servers.azurite_command(servers.find_azurite(), port, folder)
    listing = f"{servers.container_url(port)}?restype=container&comp=list&maxresults=1&{plan.signature}"
    return _server(plan, "azurite", command, folder, Readiness(url=listing))


def _mosquitto(plan: Plan, folder: Path) -> ProcessSpec:
    command = servers.mosquitto_command(servers.find_mosquitto(), plan.ports["mosquitto"], folder)
    return _server(plan, "mosquitto", command, folder)


def _wan(plan: Plan, folder: Path) -> ProcessSpec:
    pairs = (("wan_servicebus", "servicebus"), ("wan_blobs", "azurite"))
    forward = [part for near, far in pairs for part in ("--forward", f"{plan.ports[near]}:{plan.ports[far]}")]
    # Ready without being asked: while it is cut it answers nobody, and that is no reason to start it again.
    return _server(plan, "wan", (sys.executable, "-m", "services.standins.wan", *forward), folder, Readiness())


_BACKING: Mapping[Backing, Callable[[Plan, Path], ProcessSpec]] = {
    "redis": _redis,
    "servicebus": _servicebus,
    "postgres": _postgres,
    "azurite": _azurite,
    "mosquitto": _mosquitto,
    "wan": _wan,
}


def _control(plan: Plan, name: str, flags: tuple[str, ...]) -> ProcessSpec:
    names = [port for port in plan.ports.numbers if port == name or port.startswith(f"{name}_")]
    health = plan.ports[f"{name}_health"]
    return ProcessSpec(
        name=name,
        command=(
            str(plan.dapr_bin / name),
            *("--port", str(plan.ports[name]), "--listen-address", LOOPBACK),
            *("--healthz-port", str(health), "--healthz-listen-address", LOOPBACK),
            *("--metrics-port", str(plan.ports[f"{name}_metrics"]), "--metrics-listen-address", LOOPBACK),
            *("--log-level", plan.run_file.common.log_level),
            *flags,
        ),
        stage=CONTROL_STAGE,
        cwd=plan.home.path,
        env=environment({}),
        readiness=Readiness(url=f"http://{LOOPBACK}:{health}/healthz"),
        log=plan.home.logs / f"{name}.log",
        ports={port: plan.ports[port] for port in names},
        url=f"{LOOPBACK}:{plan.ports[name]}",
    )


def _sentry(plan: Plan) -> ProcessSpec:
    """Signs the certificates of all others, so it is there before them."""
    authority.anchors(plan.authority)
    # It wants a configuration, and finds in this one nothing that it has not by default.
    configuration = plan.run_file.resolve(plan.run_file.common.config_file_path or "config.yaml")
    flags = ("--issuer-credentials", str(plan.authority), "--config", str(configuration))
    spec = _control(plan, "sentry", flags)
    return replace(spec, stage=BACKING_STAGE, command=(str(find_sentry(plan.dapr_bin)), *spec.command[1:]))


def _placement(plan: Plan) -> ProcessSpec:
    # A single server elects itself, but still listens for peers, by default on 8201 whatever its other ports are.
    raft = f"dapr-placement-0={LOOPBACK}:{plan.ports['placement_raft']}"
    return _control(plan, "placement", ("--initial-cluster", raft, *plan.tls))


def _scheduler(plan: Plan) -> ProcessSpec:
    peer = plan.ports["scheduler_etcd_peer"]
    flags = (
        *("--etcd-data-dir", str(plan.home.path / "scheduler")),
        *("--etcd-client-port", str(plan.ports["scheduler_etcd_client"])),
        *("--etcd-initial-cluster", f"dapr-scheduler-server-0=http://localhost:{peer}"),
        *("--override-broadcast-host-port", f"{LOOPBACK}:{plan.ports['scheduler']}"),
        *plan.tls,
        *(("--identity-directory-write", str(plan.authority / "scheduler")) if plan.settings.mtls else ()),
    )
    return _control(plan, "scheduler", flags)
