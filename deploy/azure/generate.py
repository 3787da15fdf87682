"""Writes topics.json: the topics and subscriptions that main.bicep makes, from dapr/subscriptions.yaml.

python deploy/azure/generate.py
"""

import json
from pathlib import Path
from typing import Any

from services.standins.entities import DUPLICATE_WINDOW, LOCK_SECONDS, MAX_DELIVERY, wanted

HERE = Path(__file__).parent
SUBSCRIPTIONS = HERE.parents[1] / "dapr" / "subscriptions.yaml"
SITE = "{site}"


def topics() -> dict[str, Any]:
    """Each topic with the services that listen; and those that every site's uplink listens to."""
    with_site = wanted(SUBSCRIPTIONS, [SITE])
    return {
        "lockDuration": f"PT{LOCK_SECONDS:g}S",
        "maxDeliveryCount": MAX_DELIVERY,
        "duplicateWindow": f"PT{DUPLICATE_WINDOW / 60:g}M",
        "topics": [
            {"name": topic, "subscriptions": [name for name in names if name != SITE]}
            for topic, names in with_site.items()
        ],
        "siteTopics": [topic for topic, names in with_site.items() if SITE in names],
    }


if __name__ == "__main__":
    (HERE / "topics.json").write_text(json.dumps(topics(), indent=1) + "\n")
