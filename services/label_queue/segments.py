"""The order of a project's tasks, durable: segments of about a thousand headers, written by one replica each.

Dapr cannot list keys. Each run of a replica appends headers to segments of its own, so that nobody else's write
can come between, and says in its chain how long they are; an index names the chains. Of several headers of a task
the one with the highest revision counts, and an open one only says that the record must be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.label_queue.book import Header
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

SEGMENT = 1000  # headers in one segment document


@dataclass
class Chain:
    """This run's segments of one project: how long they are, and the last one, which is still growing."""

    sizes: list[int] = field(default_factory=list)
    tail: list[Header] = field(default_factory=list)


class Segments:
    """Appends to this run's chain, and reads what all chains have gained."""

    def __init__(self, service: Service, boot: str) -> None:
        self._service = service
        self._boot = boot
        self._chains: dict[str, Chain] = {}
        self._seen: dict[tuple[str, str], list[int]] = {}

    async def ready(self, project: str) -> None:
        """This run's chain is in the index; to be called before the first `append`."""
        if project in self._chains:
            return

        async def register(unit: Unit) -> None:
            index = await unit.get(_index(project)) or {"chains": []}
            if self._boot not in index["chains"]:
                unit.put(_index(project), {"chains": [*index["chains"], self._boot]}, guard=True)

        await transact(self._service, register)
        self._chains.setdefault(project, Chain())

    def append(self, project: str, headers: Sequence[Header], unit: Unit) -> None:
        """Write the headers with the unit. The caller holds `lock("segments")` until it is committed.

        A header of a task that then is not written, or not like that, is harmless as long as it is open.
        """
        chain = self._chains[project]
        rest = list(headers)
        while rest:
            if len(chain.tail) >= SEGMENT or not chain.sizes:
                chain.sizes.append(0)
                chain.tail = []
            room = SEGMENT - len(chain.tail)
            chain.tail.extend(rest[:room])
            rest = rest[room:]
            chain.sizes[-1] = len(chain.tail)
            unit.put(_segment(project, self._boot, len(chain.sizes) - 1), {"headers": list(chain.tail)})
        unit.put(_chain(project, self._boot), {"sizes": list(chain.sizes)})

    async def news(self, project: str) -> list[Header]:
        """The headers that other runs have written since the last call."""
        state = self._service.state
        index = (await state.get([_index(project)])).get(_index(project))
        boots = [boot for boot in (index.value["chains"] if index else []) if boot != self._boot]
        chains = await state.get([_chain(project, boot) for boot in boots])
        wanted: dict[str, int] = {}
        grown: dict[tuple[str, str], list[int]] = {}
        for boot in boots:
            entry = chains.get(_chain(project, boot))
            sizes: list[int] = entry.value["sizes"] if entry else []
            seen = self._seen.get((project, boot), [])
            for number, size in enumerate(sizes):
                before = seen[number] if number < len(seen) else 0
                if size > before:
                    wanted[_segment(project, boot, number)] = before
            grown[project, boot] = sizes
        found: list[Header] = []
        keys = list(wanted)
        for start in range(0, len(keys), 100):
            rows = await state.get(keys[start : start + 100])
            for key, row in rows.items():
                found += [_header(raw) for raw in row.value["headers"][wanted[key] :]]
        self._seen |= grown
        return found


def _header(raw: Sequence[Any]) -> Header:
    name, priority, state, revision, label, asked, imported, answers, *more = raw
    # Without the last field, of an older version: the record is read.
    return (name, priority, state, revision, label, asked, imported, answers, more[0] if more else None)


def _index(project: str) -> str:
    return f"segments:{project}"


def _chain(project: str, boot: str) -> str:
    return f"chain:{project}:{boot}"


def _segment(project: str, boot: str, number: int) -> str:
    return f"seg:{project}:{boot}:{number}"
