"""The report of the edge, `out/edge/report.json`: each test adds the numbers that it has measured."""

import json
from typing import Any

from services.cli.settings import default_root

REPORT = default_root() / "out" / "edge" / "report.json"


def noted(**numbers: Any) -> None:
    """Put these numbers into the report, in place of older ones of the same names."""
    known = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(known | numbers, indent=1) + "\n")


def counted(name: str, *, lost: int, doubled: int, **more: Any) -> None:
    """What one test has lost and doubled; `lost` and `doubled` of the report are the sums over all of them."""
    known = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    tests = known.get("tests", {}) | {name: {"lost": lost, "doubled": doubled, **more}}
    noted(tests=tests, **{what: sum(row[what] for row in tests.values()) for what in ("lost", "doubled")})
