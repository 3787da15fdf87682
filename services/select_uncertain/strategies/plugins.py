"""A user's own strategies: the entry points of group `halfsure.strategies`, each a function like those here."""

from collections.abc import Mapping
from functools import wraps
from importlib.metadata import EntryPoint

import numpy as np

from services.runtime.plugins import Plugins
from services.select_uncertain.strategies.pool import Pick, Pool, Strategy

GROUP = "halfsure.strategies"


class BadStrategy(ValueError):
    """A strategy that was plugged in broke what every strategy promises; the message says how."""


class Strategies(Plugins[Strategy]):
    """Every strategy by its name."""

    def __init__(self, built_in: Mapping[str, Strategy]) -> None:
        super().__init__(GROUP, built_in)

    def _plugged(self, point: EntryPoint) -> Strategy:
        return _guarded(point.name, point)


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
