"""The form that a service's records have: an older service does not touch those of a newer one, which it would misread.

Fields are added within a form, and read with their defaults where they are missing, so that an upgrade needs nothing;
tests/versions has what each version left, and tests/service/test_upgrade.py goes on from it.
"""

import contextlib

from services.runtime.errors import Conflict
from services.runtime.ports import CREATE, Put, State

KEY, FORM = "schema", 1


class NewerState(RuntimeError):
    """A newer version of halfsure has written this store."""


async def check(state: State) -> None:
    """Note the form in a store that has none yet. Raises NewerState for one that this version does not know."""
    found = (await state.get([KEY])).get(KEY)
    if found is None:
        with contextlib.suppress(Conflict):  # another replica was sooner
            await state.commit([Put(KEY, {"form": FORM}, CREATE)])
    elif found.value["form"] > FORM:
        raise NewerState(
            f"the state store has records of form {found.value['form']}, and this version knows {FORM}:"
            " start the version that wrote them, or restore a backup from before it"
        )
