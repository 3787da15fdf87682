"""Training by whoever answers at a URL: asked by a signed message, heard by a signed callback.

The message names the work and where its record goes, as backends/exchange.py describes; both sides sign by the Standard
Webhooks specification with one secret. The record is the truth: a callback tells of it sooner, or of a failure that
leaves none. A callback that is lost costs time only.
"""

from collections.abc import Callable
from typing import Literal

import httpx2
import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field

from services.contracts.signatures import key_of, signed
from services.retrain_trigger.backends import Job, JobRefused, Outcome, Work, files
from services.retrain_trigger.backends.exchange import Exchange, record_uri
from services.retrain_trigger.backends.news import News
from services.retrain_trigger.settings import RetrainTriggerSettings, WebhookSettings
from services.runtime.errors import Unavailable
from services.runtime.memory import SystemClock
from services.runtime.outward import Inward, pinned
from services.runtime.ports import Blobs, Clock

log = structlog.get_logger()

LOOK_SECONDS = 2.0
REFUSALS = (400, 401, 403, 404, 405, 410, 413, 415, 422)


class WebhookUnset(SystemExit):
    """The webhook lacks its settings; the process ends with this sentence."""


class Callback(BaseModel):
    """What the trainer says of a run: that it works on it, that the record is there, or that there will be none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["running", "succeeded", "failed"]
    error: str | None = Field(default=None, max_length=4000)


class WebhookBackend:
    """Messages to one URL."""

    name = "webhook"
    limit: float | None

    def __init__(
        self,
        blobs: Callable[[], Blobs],
        settings: RetrainTriggerSettings,
        own: WebhookSettings | None = None,
        client: httpx2.AsyncClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._exchange = Exchange(blobs)
        self.limit = settings.training_timeout
        self._own = own or WebhookSettings()
        if not self._own.url:
            raise WebhookUnset("the backend `webhook` needs HALFSURE_RETRAIN_TRIGGER_WEBHOOK_URL")
        try:
            self._key = key_of(self._own.secret.get_secret_value())
        except ValueError as error:
            raise WebhookUnset(f"HALFSURE_RETRAIN_TRIGGER_WEBHOOK_SECRET: {error}") from error
        self._client = client or httpx2.AsyncClient(timeout=30)
        self._clock = clock or SystemClock()
        self._news = News()

    @property
    def key(self) -> bytes:
        """What callbacks are signed with."""
        return self._key

    async def submit(self, work: Work) -> str:
        """Raises Unavailable to be asked again, and JobRefused when the other side will not have it."""
        body = orjson.dumps(
            {
                "type": "training.requested",
                "timestamp": self._clock.now().isoformat(),
                "data": {
                    "run_id": work.run_id,
                    "project": work.project,
                    "work_uri": await self._exchange.give(work),
                    "record_uri": record_uri(work.run_id),
                    "callback": f"{self._own.callback_url.rstrip('/')}/v1/runs/{work.run_id}:callback",
                },
            }
        )
        headers = {"content-type": "application/json", **signed(self._key, work.run_id, self._clock.now(), body)}
        try:
            to = await pinned(self._own.url, inside=self._own.inside)
            headers |= to.headers
            answer = await self._client.post(to.url, content=body, headers=headers, extensions=to.extensions)
        except Inward as error:
            raise JobRefused(str(error)) from error
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"{self._own.url} does not answer: {error}") from error
        if answer.status_code in REFUSALS:
            raise JobRefused(f"{self._own.url} answered {answer.status_code}: {answer.text[:500]}")
        if not answer.is_success:
            raise Unavailable(f"{self._own.url} answered {answer.status_code}")
        return work.run_id

    async def poll(self, job_id: str, patience: float) -> Job:
        return await self._news.follow(job_id, lambda: self._stands(job_id), patience, LOOK_SECONDS)

    def told(self, run: str) -> None:
        """The trainer has called back."""
        self._news.tell(run)

    async def outcome(self, job_id: str) -> Outcome:
        self._news.drop(job_id)
        return await self._exchange.outcome(record_uri(job_id))

    async def cancel(self, job_id: str) -> None:
        """Nobody is told: what is made nevertheless is not looked at."""
        self._news.drop(job_id)

    async def forget(self, project: str, sample_ids: set[str]) -> None:
        """Nothing to erase here: contents are where the trainer has put them."""

    async def close(self) -> None:
        await self._client.aclose()

    async def _stands(self, job_id: str) -> Job:
        record = await self._exchange.record(record_uri(job_id))
        return Job("running") if record is None else files.ended(record.model_dump())
