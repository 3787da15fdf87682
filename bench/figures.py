"""The figures of a bench as rows, each beside its ceiling in the same run; their history; and what has got worse. Pure.

A row is `{what, value, ceiling, ratio, goal, met}`: `value` and `ceiling` are of one unit, said in `what`; `ratio` is
value / ceiling; `goal` is what the ratio should be at least or at most, as `">= 0.6"`. What other targets measure
(`make test-queue`, `make bench-selection`) comes from their reports, if they have been run.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Row = dict[str, Any]

TOLERANCE = 0.2  # of a ratio: what a loaded machine does to it from run to run
LATEST = 5  # runs that a new one is held against
LEAST = 3  # runs before there is anything to hold it against


def row(what: str, value: float, ceiling: float | None, goal: str | None) -> Row:
    """One figure; `met` is None without a goal."""
    ratio = None if not ceiling else value / ceiling
    seen = value if ceiling is None else ratio
    met = None if goal is None or seen is None else kept(seen, goal)
    return {"what": what, "value": value, "ceiling": ceiling, "ratio": ratio, "goal": goal, "met": met}


def kept(value: float, goal: str) -> bool:
    """`">= 0.6"` or `"<= 50"`. Raises ValueError for another form."""
    sign, _, number = goal.partition(" ")
    if sign not in (">=", "<="):
        raise ValueError(f"a goal begins with >= or <=, not {goal!r}")
    return value >= float(number) if sign == ">=" else value <= float(number)


def chain(rows: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The chain's rate beside those of empty handlers; the ratio is that of passes of the same turn."""
    rate = rows["chain"]["rate_median"]
    found: list[Row] = []
    for name, one in rows.items():
        if name == "chain":
            continue
        goal = ">= 0.6" if name == "empty handlers" else None
        ratio = one["chain_ratio_median"]
        told = row(f"chain beside {name}, samples/s", rate, one["rate_median"], goal)
        found.append(told | {"ratio": ratio, "met": kept(ratio, goal) if goal else None})
    return found


def replicas(rates: Mapping[str, Sequence[tuple[float, float]]]) -> list[Row]:
    """The chain's rate with two replicas of a service beside that with one, in passes of the same turn."""
    return [
        row(
            f"chain with two of {app} beside one, samples/s",
            median(a for a, _ in pairs),
            median(b for _, b in pairs),
            None,
        )
        | {"ratio": median(two / one for two, one in pairs)}
        for app, pairs in rates.items()
    ]


def memory(megabytes: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Of each process of the chain after all passes, beside its empty twin's."""
    empty = megabytes["empty"]
    return [
        row(f"{name}, resident MB after all passes beside its empty twin", size, empty.get(name), None)
        for name, size in megabytes["chain"].items()
    ]


def inference(tiny: Mapping[str, float], convolutional: Mapping[str, float]) -> list[Row]:
    """infer's rates by CPU second beside onnxruntime's, and beside its own one by one."""
    raw, model, service = "onnxruntime, tensors in batches", "model, tensors in batches", "service, pictures in batches"
    alone, pictures_alone = "model, tensors one by one", "service, pictures one by one"
    batches = "in batches beside one by one, samples/s"
    rows = [
        row("infer, tiny model, tensors beside onnxruntime, samples/s", tiny[model], tiny[raw], ">= 0.6"),
        row("infer, tiny model, pictures beside onnxruntime, samples/s", tiny[service], tiny[raw], None),
        row(f"infer, tiny model, tensors {batches}", tiny[model], tiny[alone], ">= 15"),
        # Each picture is decoded for itself, which costs a tiny model's samples most of their time.
        row(f"infer, tiny model, pictures {batches}", tiny[service], tiny[pictures_alone], None),
    ]
    what = "infer, convolutional model, tensors beside onnxruntime, samples/s"
    return [*rows, row(what, convolutional[model], convolutional[raw], ">= 0.9")]


def queue(report: Mapping[str, Any]) -> list[Row]:
    """Of out/labels/report.json: how long a claim takes, with few and with many tasks waiting."""
    found: dict[str, float] = {str(size): ms for size, ms in report.get("claim_p95_ms", {}).items()}
    if not found:
        return []
    sizes = sorted(found, key=int)
    rows = [row(f"claim with {int(size):,} waiting, p95 ms", found[size], None, "<= 50") for size in sizes]
    few, many = found[sizes[0]], found[sizes[-1]]
    return [*rows, row(f"claim with {int(sizes[-1]):,} waiting beside {int(sizes[0]):,}, p95 ms", many, few, "<= 1.5")]


def selection(report: Mapping[str, Any]) -> list[Row]:
    """Of out/bench-selection/report.json: its goals as it says them, since they are of many units."""
    return [
        {
            "what": f"selection: {one['goal']}",
            "value": one["reached"],
            "ceiling": None,
            "ratio": None,
            "goal": one["goal"],
            "met": one["met"],
        }
        for one in report.get("goals", ())
    ]


def worse(rows: Sequence[Row], history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ratios that are off those of the last runs by more than the tolerance, in the direction of their goal.

    Only ratios: rates change with the machine and with what else it does.
    """
    faults: list[str] = []
    for one in rows:
        if one["ratio"] is None or one["goal"] is None:
            continue
        before = [run["ratios"][one["what"]] for run in history[-LATEST:] if one["what"] in run["ratios"]]
        if len(before) < LEAST:
            continue
        usual = median(before)
        less_is_better = one["goal"].startswith("<=")
        bound = usual * (1 + TOLERANCE if less_is_better else 1 - TOLERANCE)
        if one["ratio"] > bound if less_is_better else one["ratio"] < bound:
            faults.append(f"{one['what']}: {one['ratio']:.2f}, where the last {len(before)} had {usual:.2f}")
    return faults


def remembered(rows: Sequence[Row], at: str, commit: str, machine: str) -> dict[str, Any]:
    """What the history keeps of a run."""
    ratios = {one["what"]: round(one["ratio"], 4) for one in rows if one["ratio"] is not None}
    return {"at": at, "commit": commit, "machine": machine, "ratios": ratios}
