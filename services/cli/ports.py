"""Which process listens where, and who is in the way."""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from services.cli.profiles import PORTS, PROFILES, apps_of
from services.cli.runfile import RunFile
from services.cli.settings import StackSettings

_NAMED_AT_MOST = 5


class PortsBusy(Exception):
    """A port that a process of ours needs is taken."""


class BadPorts(Exception):
    """The configured ports cannot all be used."""


@dataclass(frozen=True)
class PortPlan:
    """Port numbers by name: `redis`, `placement`, `placement_health`, `ingest`, `ingest_http`, ..."""

    numbers: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]


def port_key(app_id: str) -> str:
    """`select-uncertain` -> `select_uncertain`, so that a port has a name in the environment."""
    return app_id.replace("-", "_")


def plan_ports(run_file: RunFile, settings: StackSettings) -> PortPlan:
    """Every port of the stack: from the run file, shifted by the offset, or as overridden by name."""
    placement, scheduler = run_file.placement_port, run_file.scheduler_port
    backing = [name for place in PROFILES[settings.profile] for name in place.backing]
    base = {
        **{name: port for one in backing for name, port in PORTS[one].items()},
        "placement": placement,
        "placement_health": placement + 1,
        "placement_metrics": placement + 2,
        "placement_raft": placement + 8,
        "scheduler": scheduler,
        "scheduler_health": scheduler + 1,
        "scheduler_metrics": scheduler + 2,
        "scheduler_etcd_client": scheduler + 3,
        "scheduler_etcd_peer": scheduler + 4,
    }
    if settings.mtls:
        base |= {"sentry": placement + 16, "sentry_health": placement + 17, "sentry_metrics": placement + 18}
    for _, app in apps_of(settings.profile, run_file):
        key = port_key(app.app_id)
        base[key] = app.app_port
        base[f"{key}_http"] = app.http_port
        base[f"{key}_grpc"] = app.grpc_port
        base[f"{key}_metrics"] = app.metrics_port
        base[f"{key}_internal"] = app.internal_port
    unknown = sorted(settings.ports.keys() - base.keys())
    if unknown:
        raise BadPorts(f"no port is called {', '.join(unknown)}; there are: {', '.join(base)}")
    numbers = {name: settings.ports.get(name, number + settings.port_offset) for name, number in base.items()}
    _check(numbers)
    return PortPlan(numbers)


def _check(numbers: Mapping[str, int]) -> None:
    seen: dict[int, str] = {}
    for name, number in numbers.items():
        if not 1 <= number <= 65_535:
            raise BadPorts(f"port {number} for {name} is not between 1 and 65535")
        if number in seen:
            raise BadPorts(f"port {number} is given to both {seen[number]} and {name}")
        seen[number] = name


def is_free(port: int) -> bool:
    """Whether a process may listen on 127.0.0.1:port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection in TIME_WAIT is no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on the port, in words; empty when the system does not tell."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if not connection.laddr or connection.status != psutil.CONN_LISTEN or connection.laddr[1] != port:
                continue
            if connection.pid is None:
                return ""
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, PermissionError):
        return ""
    return ""


def refuse_busy(ports: Mapping[str, int]) -> None:
    """Raise PortsBusy naming every taken port, who wants it and who has it."""
    busy = [(name, port) for name, port in ports.items() if not is_free(port)]
    if not busy:
        return
    lines = [
        f"port {port}, which {name} needs, is held by {holder(port) or 'another process'}"
        for name, port in busy[:_NAMED_AT_MOST]
    ]
    if len(busy) > _NAMED_AT_MOST:
        lines.append(f"and {len(busy) - _NAMED_AT_MOST} more")
    raise PortsBusy(
        "\n  ".join(lines) + "\nStop what holds them, or choose others: another HALFSURE_PORT_OFFSET shifts all,"
        f" HALFSURE_PORTS__{busy[0][0].upper()}=<port> moves one."
    )


def still_busy(ports: Iterable[int]) -> list[int]:
    """Those of the ports on which somebody listens."""
    return [port for port in ports if not is_free(port)]
