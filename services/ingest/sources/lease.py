"""Which replica reads a source: one record for each source, with a holder and a time. Pure, but for `renew`."""

from datetime import datetime, timedelta
from typing import Any

from services.runtime.errors import Conflict
from services.runtime.ports import CREATE, Put, State

SECONDS = 15.0
"""How long a holder that says nothing is waited for."""


def key(source: str) -> str:
    return f"src:{source}"


def free(record: dict[str, Any] | None, holder: str, now: datetime) -> bool:
    """Whether `holder` may have the source: nobody has it, it has it itself, or the other has been silent too long."""
    if record is None or record["holder"] == holder:
        return True
    return datetime.fromisoformat(record["until"]) <= now


async def renew(state: State, source: str, holder: str, now: datetime, view: dict[str, Any], seconds: float) -> bool:
    """Whether the source is `holder`'s for `seconds` from `now`. What others may know of it is kept with that."""
    entry = (await state.get([key(source)])).get(key(source))
    if not free(entry.value if entry else None, holder, now):
        return False
    record = {"holder": holder, "until": (now + timedelta(seconds=seconds)).isoformat(), "view": view}
    try:
        await state.commit([Put(key(source), record, entry.etag if entry else CREATE)])
    except Conflict:
        return False
    return True
