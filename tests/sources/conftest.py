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
_cases: Counter[str] = Counter()
_passed: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    module = report.nodeid.split("::")[0]
    if module in KINDS and report.when == "call" and not report.skipped:
        kind, _ = KINDS[module]
        _cases[kind] += 1
        _passed[kind] += report.passed


def pytest_sessionfinish() -> None:
    if _cases:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        found = {
            kind: {"cases": _cases[kind], "passed": _passed[kind], "stand_in": stand_in}
            for kind, stand_in in KINDS.values()
            if _cases[kind]
        }
        REPORT.write_text(json.dumps(found, indent=1) + "\n")
        noted(sources=[{"kind": kind, **row} for kind, row in found.items()])
