"""Counts per policy, for Prometheus; `/v1/stats` counts the same from the records, so that a restart loses nothing."""

from prometheus_client import Counter

SEEN = Counter("halfsure_policy_seen_total", "Samples that a policy judged", ["project", "policy"])
SELECTED = Counter("halfsure_policy_selected_total", "Samples that a policy asked about", ["project", "policy"])
REJECTED = Counter(
    "halfsure_policy_rejected_total", "Samples that a rule did not let pass", ["project", "policy", "rule"]
)
DROPPED = Counter(
    "halfsure_policy_dropped_total", "Choices for which there was no room", ["project", "policy", "reason"]
)
