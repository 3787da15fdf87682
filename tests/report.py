"""out/trust/report.json, which the tests of trust write their counts into, one after the other or at once."""

import fcntl
import json
from pathlib import Path
from typing import Any

REPORT = Path(__file__).parents[1] / "out" / "trust" / "report.json"


def count(name: str, number: int, part: str) -> None:
    """Put the sum over all parts there, and this part's number under `by_service`."""
    note(name, number, part, add=True)


def note(name: str, value: Any, part: str | None = None, *, add: bool = False) -> None:
    """Put a value there; with a part, among those of the others."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    with (REPORT.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(REPORT.read_text()) if REPORT.exists() else {}
        if add:
            parts = known.setdefault("by_service", {}).setdefault(name, {})
            parts[part] = value
            known[name] = sum(parts.values())
        else:
            known[name] = value if part is None else {**known.get(name, {}), part: value}
        REPORT.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
