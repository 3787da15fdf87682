"""Candidates for the gate, simulated."""

import numpy as np

from services.retrain_trigger.gate import GateSettings, judge

LABELS = tuple("abcdefghij")
SEED = 20261121


def simulated(rng: np.random.Generator, n: int, champion: float, worse_by: float) -> dict:
    """Metrics of two models whose errors are independent of each other, over ten classes of about n / 10 samples."""
    right, candidate = champion, champion - worse_by
    chances = [candidate * (1 - right), (1 - candidate) * right, candidate * right, (1 - candidate) * (1 - right)]
    sizes = rng.multinomial(n, [0.1] * 10)
    counts = rng.multinomial(sizes, np.clip(chances, 0, 1))
    rows = {label: paired(row) for label, row in zip(LABELS, counts.tolist(), strict=True)}
    total = counts.sum(axis=0).tolist()
    return {
        "candidate": {"accuracy": (total[0] + total[2]) / n},
        "champion": {"accuracy": (total[1] + total[2]) / n},
        "paired": {**paired(total), "per_class": rows},
    }


def paired(counts: list[int]) -> dict[str, int]:
    wins, losses, both, neither = counts
    return {
        "n": sum(counts),
        "candidate_only_correct": wins,
        "champion_only_correct": losses,
        "both": both,
        "neither": neither,
    }


def worse_that_pass(count: int, seed: int, n: int = 200, champion: float = 0.95) -> int:
    """How many of `count` candidates that are worse than the champion by more than delta the gate lets pass."""
    rng, settings = np.random.default_rng(seed), GateSettings()
    worse = (settings.delta + 0.001 + rng.random() * 0.05 for _ in range(count))
    return sum(judge(simulated(rng, n, champion, by), settings).promote for by in worse)
