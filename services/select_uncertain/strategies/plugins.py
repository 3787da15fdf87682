"""A user's own strategies: the entry points of group `halfsure.strategies`, each a function like those here."""

from collections.abc import Iterator, Mapping
from functools import wraps
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from services.select_uncertain.strategies.pool import Pick, Pool, Strategy

GROUP = "halfsure.strategies"


class BadStrategy(ValueError):
    """A strategy that was plugged in broke what every strategy promises; the message says how."""


class Strategies(Mapping[str, Strategy]):
    """Every strategy by its name: the built-in ones, then the installed. A built-in name cannot be taken over.

    Packages are looked at when a name is not built in, so one installed later is found; a plug-in is imported when it
    is first asked for.
    """

    def __init__(self, built_in: Mapping[str, Strategy]) -> None:
        self._built_in = dict(built_in)

    def __getitem__(self, name: str) -> Strategy:
        if name in self._built_in:
            return self._built_in[name]
        return _guarded(name, self._installed()[name])

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from (name for name in self._installed() if name not in self._built_in)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}


def _guarded(name: str, point: EntryPoint) -> Strategy:
    strategy = point.load()

    @wraps(strategy)
    def checked(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
        count = pool.check(k)
        picks = list(strategy(pool, labelled, k, rng))
        places = [pick.index for pick in picks]
        if len(places) > count or len(set(places)) < len(places):
            raise BadStrategy(
                f"{name} picked {len(places)} for k = {k} of {len(pool)}, {len(set(places))} of them once"
            )
        if not all(0 <= place < len(pool) for place in places):
            raise BadStrategy(f"{name} picked a place outside the pool of {len(pool)}")
        if not all(np.isfinite(pick.score) for pick in picks):
            raise BadStrategy(f"{name} gave a score that is not finite")
        return picks

    return checked
