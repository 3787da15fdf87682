"""Labels needed to 97 % of the fully supervised accuracy, offline: the loop's own pure parts, without its services.

    python -m bench.label_budget [--dataset digits|wine|breast_cancer|iris|FOLDER] [--seeds 10] ...

A split by seed, of digits and of a folder of images the one that `halfsure demo` and `simulate` make: a test set that
never enters the loop, a pinned evaluation set for the gate, the rest the pool. The first round is picked by coverage,
each later one by the strategy on the promoted model's scores, with one random control sample and an audit share among
the batch; all of them count. After each batch a candidate is trained, and the gate decides. Accuracy is that of the
promoted model on the test set, which only the report sees.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from services.cli.datasets import SIDE, digits
from services.cli.reading import load
from services.cli.tables import Columns
from services.contracts.inputs import TabularColumn
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import decode
from services.retrain_trigger.evaluation import compared, scored
from services.retrain_trigger.extractors import image_extractor, tabular_extractor
from services.retrain_trigger.gate import GateSettings, judge
from services.retrain_trigger.heads import Examples, HeadParams, NotTrainable, fit
from services.select_uncertain.strategies import STRATEGIES, Pool


@dataclass(frozen=True)
class Loop:
    """The settings that are being tried."""

    first: int = 10
    batch: int = 10
    budget: int = 130
    strategy: str = "uncertainty_coverage"
    audit_share: float = 0.05
    evaluation: int = 200
    test: int = 360
    stale: bool = False
    gate: GateSettings = field(default_factory=GateSettings)
    head: HeadParams = field(default_factory=HeadParams)


def main() -> None:
    """Run the seeds, print a line for each, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=Loop.first)
    parser.add_argument("--batch", type=int, default=Loop.batch)
    parser.add_argument("--budget", type=int, default=Loop.budget)
    parser.add_argument("--strategy", default=Loop.strategy, choices=sorted(STRATEGIES))
    parser.add_argument("--audit-share", type=float, default=Loop.audit_share)
    parser.add_argument("--evaluation", type=int, default=Loop.evaluation)
    parser.add_argument("--test", type=int, default=Loop.test)
    parser.add_argument("--delta", type=float, help="default: 0.02, or 3 / n where the evaluation set is too small")
    parser.add_argument("--head", default="auto", choices=["auto", "spread", "logistic"])
    parser.add_argument("--c", type=float, default=HeadParams().c)
    parser.add_argument("--stale", action="store_true", help="pick each batch before the last one was trained on")
    parser.add_argument("--json", help="write the runs to this file")
    args = parser.parse_args()
    embeddings, classes = dataset(args.dataset)
    share = min(1.0, len(classes) / 1797)
    evaluation = round(args.evaluation * share)
    loop = Loop(
        args.first,
        args.batch,
        args.budget,
        args.strategy,
        args.audit_share,
        evaluation,
        round(args.test * share),
        args.stale,
        GateSettings(delta=args.delta or max(GateSettings.delta, 3 / evaluation)),
        HeadParams(head=args.head, c=args.c),
    )
    runs = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        runs.append(play(embeddings, classes, loop, seed))
        print(_line(runs[-1]), flush=True)
    print(_summary(runs, loop))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(runs, file, indent=1)


def play(embeddings: np.ndarray, classes: np.ndarray, loop: Loop, seed: int) -> dict:
    """One run of the loop; {seed, full, rounds: [{labels, accuracy, promoted}], to_97, promotions, judged}."""
    start, rng = time.perf_counter(), np.random.default_rng(seed)
    order = rng.permutation(len(classes))
    test, pinned = order[: loop.test], order[loop.test : loop.test + loop.evaluation]
    pool = order[loop.test + loop.evaluation :]
    params = loop.head.model_copy(update={"seed": seed})
    full = fit(Examples(embeddings[pool], classes[pool], np.ones(len(pool)), embeddings[:0]), params).model
    full_accuracy = full.score(embeddings[test], classes[test])
    labelled: list[int] = []
    champion, previous, rounds, owed = None, None, [], 0.0
    while len(labelled) < min(loop.budget, len(pool)):
        size = min(loop.batch if labelled else loop.first, loop.budget - len(labelled))
        owed += loop.audit_share * size
        chance = int(owed) + (1 if labelled else 0)
        owed -= int(owed)
        judge_by = previous if loop.stale else champion
        labelled += _asked(embeddings, pool, labelled, judge_by, size, chance, loop, rng)
        previous = champion
        rest = np.setdiff1d(pool, labelled)
        given = np.array(labelled)
        try:
            candidate = fit(
                Examples(embeddings[given], classes[given], np.ones(len(given)), embeddings[rest]), params
            ).model
        except NotTrainable:
            continue
        verdict = _judged(candidate, champion, embeddings[pinned], classes[pinned], loop)
        champion = candidate if verdict.promote else champion
        accuracy = champion.score(embeddings[test], classes[test]) if champion else 0.0
        shown = candidate.score(embeddings[test], classes[test])
        rounds.append(
            {
                "labels": len(labelled),
                "accuracy": accuracy,
                "candidate": shown,
                "promoted": verdict.promote,
                "why": verdict.reasons,
            }
        )
    reached = [row["labels"] for row in rounds if row["accuracy"] >= 0.97 * full_accuracy]
    return {
        "seed": seed,
        "full": full_accuracy,
        "rounds": rounds,
        "to_97": reached[0] if reached else None,
        "promotions": sum(row["promoted"] for row in rounds),
        "promotions_to_97": sum(row["promoted"] for row in rounds if reached and row["labels"] <= reached[0]),
        "judged": len(rounds) - 1,
        "seconds": time.perf_counter() - start,
    }


def _asked(embeddings, pool, labelled, model, size, chance, loop, rng) -> list[int]:
    """Ids of the next batch: the strategy's picks, and `chance` random ones (control and audit)."""
    rest = np.setdiff1d(pool, labelled)
    size = min(size, len(rest))
    probabilities = model.predict_proba(embeddings[rest]) if model else None
    view = Pool(embeddings[rest], probabilities)
    picks = STRATEGIES[loop.strategy](view, embeddings[labelled], size - min(chance, size), rng)
    chosen = [int(rest[pick.index]) for pick in picks]
    left = np.setdiff1d(rest, chosen)
    return chosen + [int(i) for i in rng.permutation(left)[: size - len(chosen)]]


def _judged(candidate, champion, embeddings, classes, loop):
    labels = [str(i) for i in range(int(classes.max()) + 1)]
    truth = [labels[i] for i in classes]
    new = [str(i) for i in candidate.predict(embeddings)]
    if champion is None:
        return judge({"candidate": scored(truth, new, labels), "champion": None}, loop.gate)
    old = [str(i) for i in champion.predict(embeddings)]
    return judge(compared(truth, new, old, labels), loop.gate)


def dataset(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) by the bundled extractor, through PNG or JSON as in the loop, and class indices (N,)."""
    if name == "digits" or Path(name).is_dir():
        data = digits() if name == "digits" else load(Path(name), Columns())
        channels = data.input.channels or 1
        places = {label: index for index, label in enumerate(data.labels)}
        classes = np.array([places[item.label] for item in data.items])
        contents = [(item.content, item.media_type) for item in data.items]
        return _embedded(contents, *image_extractor(SIDE, SIDE, channels)), classes
    from sklearn import datasets

    table = getattr(datasets, f"load_{name}")()
    names = [f"c{i}" for i in range(table.data.shape[1])]
    stats = zip(names, table.data.mean(axis=0), table.data.std(axis=0), strict=True)
    columns = [TabularColumn(name=n, mean=mean, scale=max(scale, 1e-12)) for n, mean, scale in stats]
    rows = [json.dumps(dict(zip(names, row, strict=True))).encode() for row in table.data.tolist()]
    return _embedded([(row, "application/json") for row in rows], *tabular_extractor(columns)), table.target


def _embedded(contents: list[tuple[bytes, str]], extractor: bytes, manifest: ModelManifest) -> np.ndarray:
    import onnxruntime

    tensors = np.stack([decode(content, media_type, manifest.input) for content, media_type in contents])
    session = onnxruntime.InferenceSession(extractor, providers=["CPUExecutionProvider"])
    return session.run(["embedding"], {manifest.input.name: tensors})[0]


def _line(run: dict) -> str:
    trail = " ".join(f"{r['labels']}:{r['accuracy']:.3f}{'*' if r['promoted'] else ''}" for r in run["rounds"])
    return (
        f"seed {run['seed']:>3}  97 % at {run['to_97'] or 'never':>5}  full {run['full']:.3f}  promoted "
        f"{run['promotions']} ({run['promotions_to_97']} to 97 %)  {run['seconds']:.1f} s  {trail}"
    )


def _summary(runs: list[dict], loop: Loop) -> str:
    reached = [run["to_97"] or loop.budget + 1 for run in runs]
    ratio = [run["rounds"][-1]["accuracy"] / run["full"] for run in runs]
    candidates = [run["rounds"][-1]["candidate"] / run["full"] for run in runs]
    return (
        f"{len(runs)} seeds: labels to 97 % median {statistics.median(reached)}, worst {max(reached)}; "
        f"reached by {sum(run['to_97'] is not None for run in runs)}; promotions at least "
        f"{min(run['promotions'] for run in runs)}; final accuracy / full: worst {min(ratio):.3f}, "
        f"median {statistics.median(ratio):.3f}; last candidate / full: median {statistics.median(candidates):.3f}"
    )


if __name__ == "__main__":
    main()
