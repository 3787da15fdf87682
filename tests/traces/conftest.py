"""A collector of the OpenTelemetry project, built from its Go modules into the cache, that writes to a file."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import require_runtime

from services.cli.gotoolchain import NoGo, go_from_wheel, go_on_path, wanted_version
from services.cli.toolchain import cache_root

SOURCE = Path(__file__).with_name("collector")
PORT = 14318
CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
"""


@dataclass(frozen=True)
class Span:
    """One span, as the collector has written it."""

    service: str
    sidecar: bool
    name: str
    id: str
    parent: str
    trace: str
    links: tuple[str, ...]  # trace ids
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Collector:
    """A running collector."""

    url: str
    file: Path

    def traces(self) -> dict[str, list[Span]]:
        """All that was received, by trace."""
        found: dict[str, list[Span]] = defaultdict(list)
        for line in self.file.read_text().splitlines():
            for span in _spans(json.loads(line)):
                found[span.trace].append(span)
        return found


def _spans(batch: dict[str, Any]) -> Iterator[Span]:
    for resource in batch["resourceSpans"]:
        about = _values(resource["resource"]["attributes"])
        for scope in resource["scopeSpans"]:
            for row in scope["spans"]:
                yield Span(
                    service=about["service.name"],
                    sidecar=about.get("telemetry.sdk.language") != "python",
                    name=row["name"],
                    id=row["spanId"],
                    parent=row.get("parentSpanId", ""),
                    trace=row["traceId"],
                    links=tuple(link["traceId"] for link in row.get("links", ())),
                    attributes=_values(row.get("attributes", ())),
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values()), None) for one in attributes}


@pytest.fixture(scope="session")
def binary() -> Path:
    """The collector; the first time it is built, two minutes."""
    require_runtime()
    name = hashlib.sha256(b"".join((SOURCE / part).read_bytes() for part in ("go.sum", "main.go"))).hexdigest()[:12]
    built = cache_root() / "collector" / name / "collector"
    built.parent.mkdir(parents=True, exist_ok=True)
    with (built.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(built)
    return built


def _build(built: Path) -> None:
    wanted = wanted_version(SOURCE / "go.mod")
    try:
        go = go_on_path(wanted) or go_from_wheel(wanted, cache_root())
    except NoGo as error:
        pytest.skip(str(error))
    environment = {**os.environ, **go.environment}
    command = [str(go.binary), "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(built), "."]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True)
    if go.scratch is not None:
        shutil.rmtree(go.scratch, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def collector(binary: Path, tmp_path: Path) -> Iterator[Collector]:
    file, config = tmp_path / "spans.jsonl", tmp_path / "collector.yaml"
    config.write_text(CONFIG.format(port=PORT, file=file))
    with (tmp_path / "collector.log").open("w") as log:
        process = subprocess.Popen([str(binary), "--config", f"file:{config}"], stdout=log, stderr=log)
    try:
        _answers(process)
        yield Collector(f"http://127.0.0.1:{PORT}", file)
    finally:
        process.terminate()
        process.wait(10)


def _answers(process: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        assert process.poll() is None, "the collector has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 0.1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise AssertionError("the collector does not listen")


@pytest.fixture
def halfsure(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the command with a collector in the environment, on ports of its own."""

    def run(*arguments: str, endpoint: str) -> "subprocess.CompletedProcess[str]":
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("HALFSURE_", "OTEL_"))}
        environment = {**kept, "HALFSURE_PORT_OFFSET": "8000", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run
