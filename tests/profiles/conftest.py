"""The probe of the integration tests on every broker, and a report of what held on which."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import require_runtime
from integration.conftest import Probe, probing

REPORT = Path("out/profiles/report.json")
# What each suite holds against each profile, and whether something stands in for it on this machine.
BROKERS = {
    ("test_brokers", "local"): ("redis", False),
    ("test_brokers", "azure"): ("servicebus", True),
    ("test_sensors", ""): ("mqtt binding", False),
    ("test_stores", "local"): ("redis state, folder", False),
    ("test_stores", "azure"): ("postgresql state, azurite", True),
}
OFFSET = 16_000
_cases: Counter[str] = Counter()
_passed: Counter[str] = Counter()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["local", "azure"])
async def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Probe]:
    require_runtime()
    async with probing(tmp_path_factory.mktemp("probe"), request.param, OFFSET) as running:
        yield running


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" or report.skipped:
        return
    for (module, profile), (broker, _) in BROKERS.items():
        if f"{module}.py" in report.nodeid and profile in report.nodeid and "[memory" not in report.nodeid:
            _cases[broker] += 1
            _passed[broker] += report.passed


def pytest_sessionfinish() -> None:
    if _cases:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        found = {
            broker: {"cases": _cases[broker], "passed": _passed[broker], "stand_in": stand_in}
            for broker, stand_in in BROKERS.values()
        }
        REPORT.write_text(json.dumps(found, indent=1) + "\n")
