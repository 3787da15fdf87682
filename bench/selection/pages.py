"""What people look at: the tables as Markdown, and the learning curves as one SVG."""

from pathlib import Path
from typing import Any

from bench.selection.curves import COLD
from bench.selection.datasets import SET_ASIDE
from bench.selection.learners import HEADS

MARK = "<!-- measured: {} -->"
COLOURS = ("#1b6ca8", "#c8553d", "#6b8f3a", "#8a5a9e", "#999999")


def tables(report: dict[str, Any]) -> str:
    """Goals, labels, comparisons, heads and speed, as Markdown."""
    made = [
        f"Measured on {report['made_at'][:10]} with {', '.join(f'{n} {v}' for n, v in report['versions'].items())}.",
        "### Goals",
        _table(
            ("goal", "reached", ""),
            [(g["goal"], g["reached"], "met" if g["met"] else "**missed**") for g in report["goals"]],
        ),
    ]
    made += [f"**{m['goal']}** was missed; tried: {m['tried'] or 'nothing more'}" for m in report["missed"]]
    made += ["### Labels to 97 % of the fully supervised score, and area under the learning curve"]
    for learner, title in (("lr", "Logistic regression"), ("mlp", "Small MLP (64 hidden units)")):
        if any(row["model"] == learner for row in report["labels"]):
            made += [f"{title}; a dash: not within the budget. In brackets: the 95 % interval over the seeds.",
                     _labels(report, learner)]  # fmt: skip
    made += ["### The default beside the best peer and random", "Paired over the seeds.", _comparisons(report)]
    made += ["### Learning from the unlabelled pool, and calibration", _heads(report)]
    if report["speed"]:
        made += ["### Time and memory of one selection", _speed(report)]
    return "\n\n".join(made)


def put_into(document: Path, report: dict[str, Any]) -> None:
    """Replace what stands between the two marks."""
    begin, end = MARK.format("begin"), MARK.format("end")
    head, _, rest = document.read_text().partition(begin)
    document.write_text(f"{head}{begin}\n\n{tables(report)}\n\n{end}{rest.partition(end)[2]}")


def plot(report: dict[str, Any], path: Path) -> None:
    """Small multiples: random, margin, the best peer, the default, and it with the semi-supervised head."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "halfsure", "font.size": 8, "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    rows = {(row["dataset"], row["model"], row["strategy"]): row for row in report["labels"]}
    best = {(c["dataset"], c["model"]): c["other"] for c in report["comparisons"] if c["other"] != "random"}
    panels = sorted(best)
    figure, grid = plt.subplots(-(-len(panels) // 3), 3, figsize=(10, 2.6 * -(-len(panels) // 3)), squeeze=False)
    for axis in grid.ravel()[len(panels) :]:
        axis.axis("off")
    default = report["default"]
    for axis, (dataset, model) in zip(grid.ravel(), panels, strict=False):
        lines = [(default, model, default), ("best peer: " + best[dataset, model], model, best[dataset, model]),
                 ("margin", model, "margin"), (f"{default}, semi-supervised", "auto", default),
                 ("random", model, "random")]  # fmt: skip
        for colour, (label, learner, name) in zip(COLOURS, lines, strict=True):
            if row := rows.get((dataset, learner, name)):
                axis.plot(*row["curve"], color=colour, label=label, linewidth=1.2)
        axis.axhline(0.97 * rows[dataset, model, default]["full"], color="#cccccc", linewidth=0.8, zorder=0)
        axis.set_title(f"{dataset}{' (set aside)' if dataset in SET_ASIDE else ''}, {model}")
        axis.legend(fontsize=5, loc="lower right", frameon=False)
    figure.supxlabel("labels")
    figure.supylabel("score on the test set; grey: 97 % of all labels'")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _labels(report: dict[str, Any], learner: str) -> str:
    rows = [row for row in report["labels"] if row["model"] == learner]
    datasets = sorted({row["dataset"] for row in rows}, key=lambda name: (name in SET_ASIDE, name))
    cells = {(row["strategy"], row["dataset"]): row for row in rows}
    names = sorted(
        {row["strategy"] for row in rows}, key=lambda n: ("/" in n, n.removesuffix(COLD) != report["default"], n)
    )

    def cell(name: str, dataset: str) -> str:
        row = cells.get((name, dataset))
        if row is None:
            return ""
        low, high = row["labels_to_97_ci"]
        needed = "–" if row["labels_to_97"] is None else f"{row['labels_to_97']:.0f}"
        span = f" [{_number(low)}, {_number(high)}]" if row["labels_to_97"] is not None else ""
        return f"{needed}{span} · {row['aulc']:.3f}"

    return _table(("strategy", *datasets), [(name, *(cell(name, one) for one in datasets)) for name in names])


def _comparisons(report: dict[str, Any]) -> str:
    rows = []
    for c in report["comparisons"]:
        low, high = c["interval"]
        words = "above" if low > 0 else "not told apart" if high >= 0 else "**below**"
        rows.append((c["dataset"], c["model"], c["other"], f"{c['difference']:+.4f} [{low:+.4f}, {high:+.4f}]", words))
    return _table(("data set", "model", "beside", "difference of area", ""), rows)


def _heads(report: dict[str, Any]) -> str:
    def gap(values: list[float] | None) -> str:
        return f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]" if values else ""

    def needed(row: dict[str, Any], head: str) -> str:
        return _number(row[f"labels_to_97_{head}"]) if f"labels_to_97_{head}" in row else ""

    rows = [
        (h["dataset"], *(needed(h, head) for head in HEADS), gap(h.get("spread_minus_logistic")),
         gap(h.get("auto_minus_logistic")),
         f"{h['calibration_error_before']:.3f} → {h['calibration_error']:.3f}" if "calibration_error" in h else "")
        for h in report["heads"]
    ]  # fmt: skip
    return _table(("data set", "labels: logistic", "spread", "auto", "area: spread − logistic", "auto − logistic",
                   "calibration error"), rows)  # fmt: skip


def _speed(report: dict[str, Any]) -> str:
    rows = [
        (s["what"], f"{s['n']:,}", s["library"], s["strategy"], f"{1000 * s['seconds_min']:,.1f}",
         f"{s['ratio_to_memcpy']:,.1f}", f"{s['peak_mb']:,.1f}")
        for s in report["speed"]
    ]  # fmt: skip
    return _table(("what", "n", "library", "strategy", "CPU ms", "× memcpy", "peak MB"), rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
