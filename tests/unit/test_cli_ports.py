"""Ports: planned from the run file, shifted, overridden, and refused by name when taken."""

import os
import socket
from pathlib import Path

import pytest

from services.cli.ports import BadPorts, PortsBusy, plan_ports, refuse_busy
from services.cli.runfile import RunFileError, read_run_file
from services.cli.settings import StackSettings

RUN_FILE = read_run_file(StackSettings().run_file_path)
SERVICES = {
    "portal": 8100,
    "ingest": 8101,
    "infer": 8102,
    "select_uncertain": 8103,
    "label_queue": 8104,
    "retrain_trigger": 8105,
}


def test_default_ports_are_the_documented_ones() -> None:
    plan = plan_ports(RUN_FILE, StackSettings(port_offset=0))
    for name, port in SERVICES.items():
        assert plan[name] == port
        kinds = [plan[f"{name}_{kind}"] for kind in ("http", "grpc", "metrics", "internal")]
        assert kinds == [port + 100, port + 200, port + 300, port + 400]
    assert (plan["redis"], plan["placement"], plan["scheduler"]) == (8179, 8181, 8184)


def test_an_offset_shifts_every_port() -> None:
    plain, shifted = (plan_ports(RUN_FILE, StackSettings(port_offset=offset)) for offset in (0, 2000))
    assert {name: port + 2000 for name, port in plain.numbers.items()} == dict(shifted.numbers)


def test_a_port_of_its_own_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFSURE_PORTS__SELECT_UNCERTAIN_HTTP", "9333")
    monkeypatch.setenv("HALFSURE_PORT_OFFSET", "100")
    plan = plan_ports(RUN_FILE, StackSettings())
    assert plan["select_uncertain_http"] == 9333
    assert plan["select_uncertain"] == 8203


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ({"nobody": 9000}, "no port is called nobody"),
        ({"redis": 8101}, "port 8101 is given to both redis and ingest"),
        ({"redis": 70_000}, "port 70000 for redis"),
    ],
)
def test_ports_that_cannot_be_are_refused(ports: dict[str, int], said: str) -> None:
    with pytest.raises(BadPorts, match=said):
        plan_ports(RUN_FILE, StackSettings(port_offset=0, ports=ports))


def test_a_busy_port_is_named_with_who_wants_and_who_has_it() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortsBusy, match=rf"port {port}, which ingest needs, is held by .*\(pid {os.getpid()}\)"):
            refuse_busy({"ingest": port})
    refuse_busy({"ingest": port})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "is not a multi-app run file"),
        ("version: 1\napps: [{appID: x}]", "appPort"),
        (None, "does not exist"),
    ],
)
def test_a_bad_run_file_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "dapr.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunFileError, match=said) as refused:
        read_run_file(path)
    assert str(path) in str(refused.value)
