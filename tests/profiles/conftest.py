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
# The profile's broker, and whether something stands in for it on this machine.
BROKERS = {"local": ("redis", False), "azure": ("servicebus", True)}
OFFSET = 16_000
_cases: Counter[str] = Counter()
_passed: Counter[str] = Counter()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=list(BROKERS))
async def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Probe]:
    require_runtime()
    async with probing(tmp_path_factory.mktemp("probe"), request.param, OFFSET) as running:
        yield running


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" or "test_brokers" not in report.nodeid:
        return
    for profile, (broker, _) in BROKERS.items():
        if f"[{profile}" in report.nodeid:
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
