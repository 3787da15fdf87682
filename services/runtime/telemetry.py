"""Logs as JSON lines and metrics for Prometheus."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Metric

from services.runtime import tracing
from services.runtime.scrubbing import Scrubbing, scrubbed

RECEIVED = Counter("halfsure_events_received_total", "Events handed to a handler", ["type"])
RETRIED = Counter("halfsure_events_retried_total", "Events asked for again", ["type"])
DEAD = Counter("halfsure_dead_letters_total", "Messages shelved", ["topic"])
SHELVED = Gauge("halfsure_dead_letters_waiting", "Messages on the shelf, to be replayed or discarded")
GIVEN_WAY = Gauge("halfsure_dead_letters_dropped", "Messages that gave way to newer ones, because the shelf was full")
PUBLISHED = Counter("halfsure_events_published_total", "Events that the broker has taken", ["type"])
WAITING = Gauge("halfsure_outbox_waiting", "Units whose events wait for the broker")
REQUESTS = Counter("halfsure_requests_total", "REST requests", ["method", "status"])


class Visible:
    """The metrics that one may see who may see some projects: those of others are left away."""

    def __init__(self, sees: Callable[[str], bool]) -> None:
        self._sees = sees

    def collect(self) -> Iterator[Metric]:
        for metric in REGISTRY.collect():
            metric.samples = [one for one in metric.samples if self._sees(one.labels.get("project", ""))]
            yield metric


NOISY = (
    "httpx2",
    "httpcore2",
    "uvicorn.access",
    "azure",
    "WorkflowRuntime",
    "durabletask-worker",
    "durabletask-client",
)


class Lines(structlog.PrintLogger):
    """Prints lines while there is room for them: a full disk takes the log, not the work that is logged."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def configure(service: str, level: str) -> None:
    """Every line names its service; tracebacks stay in the log and never reach a caller."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Scrubbing("%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel("WARNING")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            tracing.logged,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            scrubbed,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )
    structlog.contextvars.bind_contextvars(service=service)
