"""Who is right: agreement against worked examples, Dawid-Skene against people who err as they are told to."""

import os
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.label_queue.agreement import agreement, krippendorff
from services.label_queue.dawid_skene import estimate
from services.label_queue.draws import draw
from services.label_queue.gold import mixed
from services.label_queue.intervals import newcombe, wilson


def people(
    rng: np.random.Generator, confusion: np.ndarray, tasks: int, each: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Simulated answers: the truth (T,), and task, annotator and class of each answer; `each` answers a task."""
    total, labels, _ = confusion.shape
    truth = rng.integers(labels, size=tasks)
    who = np.concatenate([rng.choice(total, each, replace=False) for _ in range(tasks)])
    task = np.repeat(np.arange(tasks), each)
    given_ = np.array([rng.choice(labels, p=confusion[a, truth[t]]) for t, a in zip(task, who, strict=True)])
    return truth, (task, who, given_)


def confusions(rights: list[float], labels: int) -> np.ndarray:
    """Annotators who are right so often, and else say any of the other classes."""
    return np.stack([np.eye(labels) * (r - (1 - r) / (labels - 1)) + (1 - r) / (labels - 1) for r in rights])


@pytest.mark.parametrize("seed", range(3))
def test_dawid_skene_finds_simulated_confusion_matrices_and_beats_the_majority(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    true = confusions([0.95, 0.9, 0.8, 0.45, 0.4, 0.35], 3)
    true[3, 0] = [0.1, 0.8, 0.1]  # somebody who takes the first class for the second, by system
    truth, (task, who, said) = people(rng, true, 1500, 4)
    found = estimate(task, who, said, (1500, 6, 3))
    assert np.abs(found.confusion - true).mean() < 0.03
    assert np.abs(found.reliability - np.einsum("akk->a", true) / 3).max() < 0.05
    votes = np.zeros((1500, 3))
    np.add.at(votes, (task, said), 1)
    majority, ours = (votes.argmax(1) == truth).mean(), (found.posterior.argmax(1) == truth).mean()
    print(f"majority {majority:.3f}, Dawid-Skene {ours:.3f}")
    assert ours > majority + 0.02


def test_gold_shows_that_the_majority_takes_two_classes_for_each_other() -> None:
    rng = np.random.default_rng(0)
    true = confusions([0.9, 0.9, 0.15, 0.1, 0.1], 2)
    truth, (task, who, said) = people(rng, true, 400, 3)
    blind = estimate(task, who, said, (400, 5, 2))
    told = estimate(task, who, said, (400, 5, 2), (np.arange(20), truth[:20]))
    assert (blind.posterior[20:].argmax(1) == truth[20:]).mean() < 0.2
    assert (told.posterior[20:].argmax(1) == truth[20:]).mean() > 0.9
    assert np.abs(told.confusion - true).mean() < 0.05


@pytest.mark.skipif(
    "HALFSURE_CROWDKIT_PYTHON" not in os.environ, reason="HALFSURE_CROWDKIT_PYTHON names no Python that has crowd-kit"
)
def test_dawid_skene_answers_as_crowd_kit_does(tmp_path: Any) -> None:
    import json
    import subprocess

    rng = np.random.default_rng(1)
    _, (task, who, said) = people(rng, confusions([0.9, 0.8, 0.7, 0.6, 0.5], 3), 500, 3)
    (tmp_path / "answers.json").write_text(json.dumps([task.tolist(), who.tolist(), said.tolist()]))
    program = (
        "import json, sys; import pandas as pd; from crowdkit.aggregation import DawidSkene\n"
        "rows = json.load(open(sys.argv[1])); frame = pd.DataFrame(dict(zip(['task', 'worker', 'label'], rows)))\n"
        "print(json.dumps([int(v) for v in DawidSkene(n_iter=100).fit_predict(frame).sort_index()]))"
    )
    command = [os.environ["HALFSURE_CROWDKIT_PYTHON"], "-c", program, str(tmp_path / "answers.json")]
    theirs = np.array(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    ours = estimate(task, who, said, (500, 5, 3)).posterior.argmax(1)
    print(f"equal: {(ours == theirs).mean():.4f}")
    assert (ours == theirs).mean() > 0.99


def test_krippendorffs_own_example() -> None:
    """Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), example C: nominal alpha is 0.743."""
    table = [
        [1, 1, None, 1],
        [2, 2, 3, 2],
        [3, 3, 3, 3],
        [3, 3, 3, 3],
        [2, 2, 2, 2],
        [1, 2, 3, 4],
        [4, 4, 4, 4],
        [1, 1, 2, 1],
        [2, 2, 2, 2],
        [None, 5, 5, 5],
        [None, None, 1, 1],
        [None, None, 3, None],
    ]
    counts = np.array(
        [[row.count(value) for value in range(1, 6)] for row in table if sum(v is not None for v in row) > 1]
    )
    assert krippendorff(counts) == pytest.approx(0.743, abs=5e-4)
    names = "abcd"
    told = agreement([{names[at]: str(v) for at, v in enumerate(row) if v is not None} for row in table])
    assert told["tasks"] == 11
    assert told["alpha"]["value"] == pytest.approx(0.743, abs=5e-4)
    low, high = told["alpha"]["interval"]
    assert low < 0.743 < high


def test_kappa_of_a_worked_example() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: agreement 0.7, by chance 0.5, kappa 0.4."""
    rows = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    told = agreement([{"a": first, "b": second} for first, second in rows])
    (pair,) = told["pairs"]
    assert (pair["agreement"], pair["kappa"]) == (pytest.approx(0.7), pytest.approx(0.4))
    assert pair["interval"] == pytest.approx([0.562, 0.809], abs=1e-3)
    assert pair["kappa_interval"][0] < 0.4 < pair["kappa_interval"][1]
    assert {row["value"]: row["agreement"] for row in told["classes"]} == pytest.approx({"no": 30 / 45, "yes": 40 / 55})


def test_of_several_labels_each_is_a_question_and_a_pair_agrees_on_the_whole() -> None:
    told = agreement([{"x": ["a", "b"], "y": ["a"]}, {"x": ["a"], "y": ["a"]}, {"x": [], "y": []}, {"x": ["b"]}])
    assert told["tasks"] == 3
    (pair,) = told["pairs"]
    assert pair["agreement"] == pytest.approx(2 / 3)
    # Six questions, in all of which but one they agree: a is there 2 times of 3 for both, b once for x and never for y.
    by_chance = (3 / 6) * (2 / 6) + (3 / 6) * (4 / 6)
    assert pair["kappa"] == pytest.approx((5 / 6 - by_chance) / (1 - by_chance))
    assert {row["value"]: row["agreement"] for row in told["classes"]} == {"a": 1.0, "b": 0.0}
    counts = np.array([[2, 0], [2, 0], [0, 2], [1, 1], [0, 2], [0, 2]])
    assert told["alpha"]["value"] == pytest.approx(krippendorff(counts))


def test_agreement_of_nobody_and_of_one_class() -> None:
    assert agreement([{"a": 1}, {}]) == {
        "tasks": 0,
        "alpha": {"value": None, "interval": None},
        "pairs": [],
        "classes": [],
    }
    told = agreement([{"a": "x", "b": "x"}] * 3)
    assert (told["alpha"]["value"], told["pairs"][0]["kappa"], told["pairs"][0]["agreement"]) == (None, None, 1.0)


def test_intervals_of_the_textbook() -> None:
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=2e-4)  # Newcombe 1998
    assert newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-4)  # Newcombe 1998, table II (a)
    assert (wilson(0, 0), wilson(0, 5)[0], wilson(5, 5)[1]) == ((0.0, 1.0), 0.0, 1.0)


def test_draws_are_uniform_and_always_the_same() -> None:
    drawn = [draw(f"tsk_{number}", "ann") for number in range(20_000)]
    assert drawn == [draw(f"tsk_{number}", "ann") for number in range(20_000)]
    assert np.mean(np.array(drawn) < 0.1) == pytest.approx(0.1, abs=0.01)
    assert draw("ab", "c") != draw("a", "bc")


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 50).map(str), unique=True, max_size=24),
    st.sets(st.integers(100, 140).map(str), max_size=20),
    st.sets(st.integers(100, 140).map(str), max_size=20),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_gold_takes_places_of_others_and_comes_once(
    picks: list[str], gold: set[str], seen: set[str], share: float, seed: int
) -> None:
    chosen = mixed(picks, gold, seen, share, random.Random(seed))
    assert len(chosen) == len(picks) == len(set(chosen))
    for was, now in zip(picks, chosen, strict=True):
        assert now == was or now in gold - seen
