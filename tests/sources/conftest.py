"""A report of what held for which kind of source; the edge's report lists the kinds too."""

import json
from collections import Counter
from pathlib import Path

import pytest
from edge.noting import noted

REPORT = Path("out/sources/report.json")
# What a test module is about, and whether what it reads is a stand-in.
KINDS = {
    "tests/service/test_sources.py": ("folder and binding", False),
    "tests/service/test_ingest_command.py": ("command", False),
    "tests/sources/test_opcua.py": ("opcua", False),
    "tests/sources/test_onvif.py": ("onvif", True),
    "tests/sources/test_rtsp.py": ("rtsp and video", False),
    "tests/sources/test_stack.py": ("folder, onvif and command in a stack", True),
}


class Report:
    """Registered as a plug-in of its own, since a folder's conftest hears of the tests in it only."""

    def __init__(self) -> None:
        self._cases: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        module = report.nodeid.split("::")[0]
        if module in KINDS and report.when == "call" and not report.skipped:
            kind, _ = KINDS[module]
            self._cases[kind] += 1
            self._passed[kind] += report.passed

    def pytest_sessionfinish(self) -> None:
        if not self._cases:
            return
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        found = {
            kind: {"cases": self._cases[kind], "passed": self._passed[kind], "stand_in": stand_in}
            for kind, stand_in in KINDS.values()
            if self._cases[kind]
        }
        REPORT.write_text(json.dumps(found, indent=1) + "\n")
        noted(sources=[{"kind": kind, **row} for kind, row in found.items()])


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Report(), "report of sources")
