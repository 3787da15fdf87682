"""Which code made a model."""

import hashlib
from functools import cache
from pathlib import Path

from services.runtime.service import VERSION

HERE = Path(__file__).parent
SOURCES = (*sorted(HERE.glob("*.py")), *sorted((HERE.parent / "contracts").glob("*.py")))


@cache
def code() -> dict[str, str]:
    """The release, and a hash over the modules that train, judge and export: it differs where any of them does."""
    hashed = hashlib.sha256()
    for path in SOURCES:
        hashed.update(f"{path.parent.name}/{path.name}".encode() + b"\0" + path.read_bytes() + b"\0")
    return {"release": VERSION, "sha256": hashed.hexdigest()}
