"""label-queue alone on the real Dapr runtime and Redis; its numbers go beside those of the browser suite."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import require_runtime

REPORT = Path(__file__).parents[2] / "out" / "labels" / "report.json"


@pytest.fixture(scope="session", autouse=True)
def runtime() -> None:
    require_runtime()


@pytest.fixture(scope="session")
def report() -> Callable[..., None]:
    """Put numbers into out/labels/report.json, beside those that are there."""

    def put(**numbers: Any) -> None:
        known = json.loads(REPORT.read_text()) if REPORT.exists() else {}
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        draft = REPORT.with_suffix(".draft")
        draft.write_text(json.dumps(known | numbers, indent=1, sort_keys=True) + "\n")
        draft.replace(REPORT)
        print(json.dumps(numbers))

    return put
