"""How the work goes: answers by hour, how long one takes, and why there was none. Pure."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from services.label_queue.tasks import Task

HOURS = 24


def pace(answered: Sequence[Task], skipped: Sequence[Task], now: datetime) -> dict[str, Any]:
    """Of the latest tasks: answers in each of the last hours, oldest first; seconds an answer; skips by reason.

    A second thought takes no time of its own, and what came too late is no answer.
    """
    answers = [a for task in answered for a in task.answers if a.kind != "draft" and not a.revises]
    seconds = [answer.seconds for answer in answers if answer.seconds is not None]
    ago = Counter(int((now - answer.at) / timedelta(hours=1)) for answer in answers)
    return {
        "by_hour": [ago[hour] for hour in reversed(range(HOURS))],
        "seconds": {
            "n": len(seconds),
            "p50": float(np.quantile(seconds, 0.5)) if seconds else None,
            "p90": float(np.quantile(seconds, 0.9)) if seconds else None,
        },
        "skipped": dict(Counter(task.skip_reason or "" for task in skipped).most_common()),
    }
