"""How a shadow's answers differ from those that counted: tallies by version."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from services.contracts.events import SampleScored, SampleScoringFailed
from services.contracts.values import agree
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

Verdict = SampleScored | SampleScoringFailed
Pair = tuple[str, str, bool]
FAILED = "(failed)"


def shadow_key(project: str, version: str) -> str:
    return f"shd:{project}:{version}"


def compared(counted: Sequence[Verdict], shadow: Sequence[Verdict]) -> Counter[Pair]:
    """(label that counted, label of the shadow, whether their whole answers agree) -> samples. Pure."""
    pairs = zip(counted, shadow, strict=True)
    return Counter((_label(one), _label(other), agree(_answer(one), _answer(other))) for one, other in pairs)


class Shadows:
    """Tallies in memory, added to the store's now and then: a crash costs some of the count, no answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._new: dict[tuple[str, str], Counter[Pair]] = {}

    def note(self, project: str, version: str, tally: Counter[Pair]) -> None:
        self._new.setdefault((project, version), Counter()).update(tally)

    async def store(self) -> None:
        """Add what is new to the store."""
        while self._new:
            (project, version), tally = self._new.popitem()
            try:
                await self._add(project, version, tally)
            except BaseException:
                self.note(project, version, tally)
                raise

    async def read(self, project: str, version: str) -> dict[str, Any]:
        """{version, samples, agreed, pairs: [{counted, shadow, samples, agreed}]}; `agreed` are of the samples."""
        key = shadow_key(project, version)
        entry = (await self._service.state.get([key])).get(key)
        rows = entry.value["pairs"] if entry else []
        return {
            "version": version,
            "samples": sum(row["samples"] for row in rows),
            "agreed": sum(map(_agreed, rows)),
            "pairs": [{**row, "agreed": _agreed(row)} for row in rows],
        }

    async def _add(self, project: str, version: str, tally: Counter[Pair]) -> None:
        key = shadow_key(project, version)

        async def work(unit: Unit) -> None:
            before = await unit.get(key) or {"pairs": []}
            total = {(row["counted"], row["shadow"]): [row["samples"], _agreed(row)] for row in before["pairs"]}
            for (counted, shadow, agreed), samples in tally.items():
                both = total.setdefault((counted, shadow), [0, 0])
                both[0] += samples
                both[1] += samples * agreed
            rows = [{"counted": a, "shadow": b, "samples": n, "agreed": m} for (a, b), (n, m) in sorted(total.items())]
            unit.put(key, {"pairs": rows}, guard=True)

        await transact(self._service, work)


def _label(verdict: Verdict) -> str:
    return verdict.top.label if isinstance(verdict, SampleScored) and verdict.top else FAILED


def _answer(verdict: Verdict) -> Any:
    return verdict.top.answer if isinstance(verdict, SampleScored) and verdict.top else FAILED


def _agreed(row: dict[str, Any]) -> int:
    """Samples of a pair of labels whose answers agree; a record from before there were other answers lacks it."""
    return row.get("agreed", row["samples"] if row["counted"] == row["shadow"] else 0)
