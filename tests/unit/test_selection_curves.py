"""What selection is for: fewer labels than at random, on data that is there everywhere. Row D5.

`make bench-selection` measures more sets, more seeds, and other libraries' strategies.
"""

import numpy as np

from bench.selection.curves import play
from bench.selection.statistics import summary
from services.select_uncertain.strategies import DEFAULT_STRATEGY

SEEDS = 3


def test_the_default_needs_fewer_labels_than_random_on_digits() -> None:
    ours, chance = (
        summary([play("digits", "lr", name, seed) for seed in range(SEEDS)]) for name in (DEFAULT_STRATEGY, "random")
    )
    print(f"labels to 97 %: {ours['labels_to_97']}, at random {chance['labels_to_97']}")
    assert ours["labels_to_97"] < 0.6 * (chance["labels_to_97"] or np.inf)
    assert (ours["aulcs"] > chance["aulcs"]).all()
