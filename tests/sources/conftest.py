"""A report of what held for which kind of source."""

import json
from collections import Counter
from pathlib import Path

import pytest

REPORT = Path("out/sources/report.json")
# The kind that a test module is about, and whether what it reads is a stand-in.
KINDS = {
    "test_opcua": ("opcua", False),
    "test_onvif": ("onvif", True),
    "test_rtsp": ("rtsp and video", False),
    "test_stack": ("folder, onvif and command in a stack", True),
}
_cases: Counter[str] = Counter()
_passed: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    module = Path(report.nodeid.split("::")[0]).stem
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
        }
        REPORT.write_text(json.dumps(found, indent=1) + "\n")
