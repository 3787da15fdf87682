"""Which label to ask for once more, on the same scale as which sample to ask about first."""

import numpy as np

from services.contracts.uncertainty import checked

NO_VOTE = -1


def relabel_scores(probabilities: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Uncertainty (N,) in 0..1 of what each sample's label is, after a model (N, C) and A annotators (N, A).

    `votes` holds class indices, NO_VOTE where an annotator gave none; a sample with no votes at all may be among them,
    so that one list ranks new questions and second opinions. Like ActiveLab (Goh and Mueller 2023): 1 - the mean
    belief in the likeliest class of the model, of each annotator, and of a flat prior with an average annotator's
    weight, so that more voices leave less doubt. The model and the annotators weigh as much as they agree with the
    majority beyond the commonest class. Raises ValueError.
    """
    p = checked(probabilities)
    given = np.asarray(votes, np.int64)
    classes = p.shape[1]
    if given.ndim != 2 or len(given) != len(p):
        raise ValueError(f"votes are (N, A) beside probabilities {p.shape}, not {given.shape}")
    if given.size and not NO_VOTE <= given.min() <= given.max() < classes:
        raise ValueError(f"a vote is a class of 0..{classes - 1}, or {NO_VOTE} for none")
    cast = given != NO_VOTE
    counts = (given[:, :, None] == np.arange(classes)).sum(axis=1)
    label = (counts + p).argmax(axis=1)  # the majority; the model decides between equals and where nobody voted
    agreeing = (given == label[:, None]) & cast
    several = cast.sum(axis=1) > 1
    trust = _share(agreeing[several], cast[several])
    floor = _commonest(label, classes)
    annotators = np.array([_weight(_share(agreeing[several, a], cast[several, a], trust), floor) for a in
                           range(given.shape[1])])  # fmt: skip
    voted = cast.any(axis=1)
    model = _weight(_share(p.argmax(axis=1)[voted] == label[voted], np.ones(voted.sum(), bool)), floor)
    prior = float(annotators.mean()) if annotators.size else 1.0
    belief = np.where(agreeing, trust, (1.0 - trust) / (classes - 1))
    total = prior + model + cast @ annotators
    mean = prior / classes + model * p[np.arange(len(p)), label] + (cast * belief) @ annotators
    return np.clip(1.0 - mean / np.maximum(total, 1e-12), 0.0, 1.0)


def _share(right: np.ndarray, of: np.ndarray, unknown: float = 0.9) -> float:
    """Share of right ones, a little towards what is assumed where there is little to see."""
    return float((right.sum() + unknown) / (of.sum() + 1.0))


def _commonest(label: np.ndarray, classes: int) -> float:
    return float(np.bincount(label, minlength=classes).max() / max(len(label), 1)) if len(label) else 1.0 / classes


def _weight(agreement: float, floor: float) -> float:
    """How much better than always naming the commonest class, 0..1 (ActiveLab's weights)."""
    return float(np.clip(1.0 - (1.0 - agreement) / max(1.0 - floor, 1e-3), 1e-3, 1.0))
