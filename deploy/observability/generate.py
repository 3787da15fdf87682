"""Write the dashboard, dashboard.json, that Grafana imports: `python deploy/observability/generate.py`."""

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("dashboard.json")
SOURCE = {"type": "prometheus", "uid": "${source}"}
FAILED = 'sum(rate(halfsure_requests_total{status=~"5.."}[5m])) / sum(rate(halfsure_requests_total[5m]))'
# A row's heading, and its panels: title, unit, kind, and (expression, legend) of each line.
ROWS: list[tuple[str, list[tuple[str, str, str, list[tuple[str, str]]]]]] = [
    (
        "Is it well?",
        [
            ("Services up", "short", "stat", [('sum(up{job="halfsure"})', "up")]),
            ("Dead letters", "short", "stat", [("sum(halfsure_dead_letters_waiting)", "waiting")]),
            ("Waiting for the broker", "short", "stat", [("sum(halfsure_outbox_waiting)", "units")]),
            (
                "Requests that failed",
                "percentunit",
                "stat",
                [(FAILED, "5xx")],
            ),
        ],
    ),
    (
        "The loop",
        [
            (
                "Events heard",
                "ops",
                "timeseries",
                [("sum by (type) (rate(halfsure_events_received_total[5m]))", "{{type}}")],
            ),
            (
                "Events said",
                "ops",
                "timeseries",
                [("sum by (type) (rate(halfsure_events_published_total[5m]))", "{{type}}")],
            ),
            (
                "Events asked for again",
                "ops",
                "timeseries",
                [("sum by (app, type) (rate(halfsure_events_retried_total[5m]))", "{{app}} {{type}}")],
            ),
            (
                "Dead letters by topic",
                "short",
                "timeseries",
                [("sum by (app, topic) (increase(halfsure_dead_letters_total[1h]))", "{{app}} {{topic}}")],
            ),
        ],
    ),
    (
        "What is asked about",
        [
            (
                "Seen and selected",
                "ops",
                "timeseries",
                [
                    ("sum by (policy) (rate(halfsure_policy_seen_total[15m]))", "{{policy}} seen"),
                    ("sum by (policy) (rate(halfsure_policy_selected_total[15m]))", "{{policy}} selected"),
                ],
            ),
            (
                "Refused, by rule",
                "ops",
                "timeseries",
                [("sum by (policy, rule) (rate(halfsure_policy_rejected_total[15m]))", "{{policy}} {{rule}}")],
            ),
            (
                "No room, by reason",
                "ops",
                "timeseries",
                [("sum by (policy, reason) (rate(halfsure_policy_dropped_total[15m]))", "{{policy}} {{reason}}")],
            ),
        ],
    ),
    (
        "Where it comes from",
        [
            (
                "Samples by source",
                "ops",
                "timeseries",
                [("sum by (source, outcome) (rate(halfsure_source_samples_total[5m]))", "{{source}} {{outcome}}")],
            ),
            ("Connected", "short", "timeseries", [("max by (source) (halfsure_source_connected)", "{{source}}")]),
            (
                "Silent for",
                "s",
                "timeseries",
                [("time() - max by (source) (halfsure_source_last_seen_seconds)", "{{source}}")],
            ),
            (
                "The site's store",
                "bytes",
                "timeseries",
                [("sum(halfsure_buffer_bytes)", "bytes")],
            ),
            (
                "Let go for room",
                "short",
                "timeseries",
                [("sum by (reason) (increase(halfsure_buffer_dropped_total[1h]))", "{{reason}}")],
            ),
            (
                "Content sent up",
                "Bps",
                "timeseries",
                [("sum(rate(halfsure_uplink_content_bytes_total[5m]))", "bytes")],
            ),
        ],
    ),
    (
        "REST",
        [
            (
                "Requests",
                "reqps",
                "timeseries",
                [("sum by (app, status) (rate(halfsure_requests_total[5m]))", "{{app}} {{status}}")],
            )
        ],
    ),
]


def panel(number: int, place: dict[str, int], told: tuple[str, str, str, list[tuple[str, str]]]) -> dict[str, Any]:
    title, unit, kind, lines = told
    targets = [
        {"datasource": SOURCE, "expr": expression, "legendFormat": legend, "refId": chr(65 + at)}
        for at, (expression, legend) in enumerate(lines)
    ]
    field = {"defaults": {"unit": unit, "min": 0}, "overrides": []}
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": field,
        "options": {},
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    """Rows of panels, four to a line for numbers and three for curves."""
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, told in ROWS:
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": heading, "gridPos": place, "panels": []})
        y += 1
        across, high = (4, 4) if told[0][2] == "stat" else (3, 8)
        for at, one in enumerate(told):
            wide = 24 // across
            place = {"x": at % across * wide, "y": y + at // across * high, "w": wide, "h": high}
            panels.append(panel(len(panels) + 1, place, one))
        y += -(-len(told) // across) * high
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": "halfsure",
        "title": "halfsure",
        "tags": ["halfsure"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
