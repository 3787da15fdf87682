"""What a played loop has shown: a table and a chart for the terminal, a page, and JSON."""

import html
import math
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH, HEIGHT = 60, 14  # characters of the terminal's chart
PAGE = (640, 320, 48)  # width, height and margin of the page's chart, in pixels


def terminal(report: dict[str, Any]) -> RenderableType:
    """The rounds as a table, the curve as a chart, and the result in a sentence."""
    metric = report["metric"]
    table = Table(title=f"{report['dataset']}: {metric} against labels", title_justify="left")
    for name in ("labels", metric, "random", "model", "gate"):
        table.add_column(name, justify="left" if name in ("model", "gate") else "right")
    random = {row["labels"]: row["accuracy"] for row in report["baseline_random"]}
    for row in report["rounds"]:
        version = row["model_version"]
        table.add_row(
            str(row["labels"]),
            f"{row['accuracy']:.3f}",
            f"{random[row['labels']]:.3f}" if row["labels"] in random else "",
            version[:12] if version else "none yet",
            "promoted" if row["promoted"] else "rejected",
        )
    return Group(table, Text(), _chart(report), Text(), Text(sentence(report), style="bold"))


def sentence(report: dict[str, Any]) -> str:
    """The result, in words."""
    share = report["final_accuracy"] / report["full_supervised_accuracy"]
    needed = report["labels_to_97_percent"]
    reached = f"97 % of it after {needed} labels" if needed else "97 % of it was not reached"
    return (
        f"{report['labels_used']} labels give {report['final_accuracy']:.3f}, {share:.1%} of the "
        f"{report['full_supervised_accuracy']:.3f} that all {report['pool']} labels give; {reached}."
    )


def _chart(report: dict[str, Any]) -> Text:
    rounds, random = report["rounds"], report["baseline_random"]
    full = report["full_supervised_accuracy"]
    points = [(row["labels"], row["accuracy"]) for row in rounds]
    baseline = [(row["labels"], row["accuracy"]) for row in random]
    if not points:
        return Text("no round has ended")
    low = min(y for _, y in [*points, *baseline]) - 0.02
    right = max(x for x, _ in [*points, *baseline])
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]

    def mark(x: float, y: float, sign: str) -> None:
        column = round(x / right * (WIDTH - 1))
        row = HEIGHT - 1 - round((y - low) / max(full + 0.01 - low, 1e-9) * (HEIGHT - 1))
        if 0 <= row < HEIGHT:
            grid[row][column] = sign

    for column in range(0, WIDTH, 2):
        mark(column / (WIDTH - 1) * right, full, "─")
        mark(column / (WIDTH - 1) * right, 0.97 * full, "·")
    for x, y in baseline:
        mark(x, y, "o")
    for x, y in points:
        mark(x, y, "●")
    lines = ["".join(row).rstrip() for row in grid]
    lines += [f"0{' ' * (WIDTH - 5)}{right:>4}", "● this loop   o random   ─ all labels   · 97 % of them"]
    return Text("\n".join(lines))


def page(report: dict[str, Any]) -> str:
    """A self-contained HTML page."""
    rows = "".join(
        f'<tr><td class="n">{row["labels"]}</td><td class="n">{row["accuracy"]:.3f}</td>'
        f'<td class="n">{html.escape(str(row["model_version"])[:12])}</td>'
        f"<td>{'promoted' if row['promoted'] else 'rejected: ' + html.escape(row.get('why', ''))}</td></tr>"
        for row in report["rounds"]
    )
    events = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{count}</td></tr>" for name, count in sorted(report["events"].items())
    )
    facts = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>" for name, value in _facts(report)
    )
    title = f"halfsure on {report['dataset']}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{html.escape(title)}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d5dae1; --loop: #0b63ce; --bg: #fff }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6eaf0; --soft: #9aa5b4; --line: #364152; --loop: #6cb0ff; --bg: #12171f }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--bg);
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100%; margin: .5rem 0 2rem }}
td, th {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }}
.n, th {{ white-space: nowrap }} .n {{ font-variant-numeric: tabular-nums }}
svg {{ width: 100%; height: auto }} .lead {{ font-size: 1.15rem }}
</style>
<h1>{html.escape(title)}</h1>
<p class="lead">{html.escape(sentence(report))}</p>
<h2>Accuracy against labels</h2>
{_svg(report)}
<table><tr><th>labels</th><th>accuracy</th><th>model in service</th><th>gate</th></tr>{rows}</table>
<h2>The run</h2><table>{facts}</table>
<h2>Events</h2><table><tr><th>type</th><th>published</th></tr>{events}</table>
</html>
"""


def _facts(report: dict[str, Any]) -> list[tuple[str, Any]]:
    names = ("strategy", "seed", "pool", "labels_used", "evaluation_labels", "final_accuracy")
    names += ("full_supervised_accuracy", "labels_to_97_percent", "wall_seconds")
    rows = [(name.replace("_", " "), report[name]) for name in names]
    return [*rows, ("Dapr runtime", report["dapr"]["runtime_version"]), ("apps", ", ".join(report["dapr"]["app_ids"]))]


def _svg(report: dict[str, Any]) -> str:
    width, height, margin = PAGE
    loop = [(row["labels"], row["accuracy"]) for row in report["rounds"]]
    random = [(row["labels"], row["accuracy"]) for row in report["baseline_random"]]
    full = report["full_supervised_accuracy"]
    right = max([x for x, _ in [*loop, *random]] or [1])
    low = math.floor((min([y for _, y in [*loop, *random]] or [0]) - 0.01) * 10) / 10

    def place(x: float, y: float) -> tuple[float, float]:
        across = margin + x / right * (width - 2 * margin)
        return across, height - margin - (y - low) / (1.0 - low) * (height - 2 * margin)

    def line(points: list[tuple[float, float]], style: str) -> str:
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(place(*p) for p in points))
        return f'<path d="{path}" fill="none" {style}/>'

    dots = "".join(
        f'<circle cx="{place(*p)[0]:.1f}" cy="{place(*p)[1]:.1f}" r="4" fill="var(--loop)">'
        f"<title>{p[0]} labels: {p[1]:.3f}</title></circle>"
        for p in loop
    )
    steps = [low + 0.1 * i for i in range(round((1.0 - low) * 10) + 1)]
    axis = "".join(
        f'<text x="{margin - 6}" y="{place(0, y)[1] + 4:.1f}" text-anchor="end">{y:.2f}</text>'
        f'<path d="M{margin} {place(0, y)[1]:.1f}H{width - margin}" stroke="var(--line)"/>'
        for y in steps
    )
    ticks = "".join(
        f'<text x="{place(x, low)[0]:.1f}" y="{height - margin + 18}" text-anchor="middle">{x:.0f}</text>'
        for x in [right * i / 4 for i in range(5)]
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="accuracy against labels" font-size="12" '
        f'fill="var(--soft)">{axis}{ticks}'
        + line([(0, full), (right, full)], 'stroke="var(--soft)"')
        + line([(0, 0.97 * full), (right, 0.97 * full)], 'stroke="var(--soft)" stroke-dasharray="2 4"')
        + line(random, 'stroke="var(--soft)" stroke-width="2" stroke-dasharray="6 4"')
        + line(loop, 'stroke="var(--loop)" stroke-width="2.5"')
        + dots
        + f'<text x="{margin}" y="{margin - 26}">labels: <tspan fill="var(--loop)">this loop</tspan>, random (dashed), '
        + f"all labels {full:.3f} (line), 97 % of that (dotted)</text>"
        + "</svg>"
    )
