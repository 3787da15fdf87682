"""What starts a run besides enough labels: a schedule, drift, and not before labels have settled."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SIDECAR_TOKEN, Running, wait_until
from training import N, Rehearsal, ask, ended, label, make, running, runs, settled, train_first

from services.contracts.events import ScoresSummarised
from services.retrain_trigger.marks import PREFIX

pytestmark = pytest.mark.usefixtures("brisk")

MANY = 100_000


async def rule(one: Running, **more: Any) -> None:
    etag = (await one.call("GET", "/v1/triggers/default")).headers["etag"]
    body = {"n": MANY, "min_per_class": 2, **more}
    answer = await one.call("PUT", "/v1/triggers/default", json=body, headers={"if-match": etag})
    assert answer.status_code == 200, answer.text


async def tick(one: Running, project: str = "default", token: str = SIDECAR_TOKEN) -> int:
    """What the scheduler does: the same, as it may, twice."""
    for _ in range(2):
        answer = await one.client.post(f"/job/{PREFIX}{project}", headers={"dapr-api-token": token})
    return answer.status_code


async def test_a_schedule_looks_for_new_labels_and_a_look_without_any_is_spent(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await train_first(one)
        await rule(one, schedule="0 2 * * *")
        jobs = one.service.jobs
        await wait_until(lambda: jobs.schedules == {"retrain-default": "0 2 * * *"})  # type: ignore[attr-defined]
        assert await tick(one, token="nonsense") == 401
        assert await tick(one) == 204
        await settled(one)
        await one.deliver_batch([label(number) for number in range(N, N + 3)])
        await settled(one)
        assert len(await runs(one)) == 1
        assert await tick(one) == 204
        run = (await ended(one, 2))[0]
        assert run["reason"] == "schedule"
        await settled(one)
        assert len(await runs(one)) == 2


async def test_a_schedule_that_is_taken_back_is_no_longer_kept(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one, trigger={"n": MANY, "schedule": "@daily"})
        jobs = one.service.jobs
        await wait_until(lambda: jobs.schedules)  # type: ignore[attr-defined]
        await rule(one)
        await wait_until(lambda: not jobs.schedules)  # type: ignore[attr-defined]
        jobs.schedules["retrain-gone"] = "@daily"  # type: ignore[attr-defined]
        assert await tick(one, "gone") == 204
        assert not jobs.schedules  # type: ignore[attr-defined]


async def test_a_bad_schedule_is_refused_by_name(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        body = {"schedule": "at night"}
        answer = await one.call("PUT", "/v1/triggers/default", json=body, headers={"if-match": '"1"'})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/schedule"


class Scores:
    """Summaries of what infer's model says, number after number."""

    def __init__(self, one: Running, version: str) -> None:
        self.one, self.version, self.number = one, version, 0
        self.rng = np.random.default_rng(5)

    async def say(self, sharpness: float, summaries: int = 2) -> None:
        for _ in range(summaries):
            self.number += 1
            counts = np.histogram(self.rng.beta(sharpness, 1.0, 50), 20, (0, 1))[0].tolist()
            event = ScoresSummarised(
                project="default",
                model_version=self.version,
                site="edge",
                instance="infer-0",
                until=self.one.clock.now() + timedelta(milliseconds=self.number),
                samples=50,
                confidence=counts,
            )
            assert await self.one.deliver(event, event) == ["SUCCESS", "SUCCESS"]


async def test_drift_of_the_scores_starts_one_run_a_cooldown_however_noisy(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = await train_first(one)
        backend.accuracy = 0.5  # what is trained is refused: the champion, and with it the drift, stays
        await rule(one, drift={"window": 100, "psi": 0.3, "cooldown_seconds": 600})
        scores = Scores(one, first["model_version"])
        for _ in range(4):
            await scores.say(6.0)
        await one.deliver_batch([label(number) for number in range(N, N + 5)])
        await settled(one)
        assert len(await runs(one)) == 1
        assert (await ask(one, "/v1/triggers/default"))["drift"]["drift"] is False
        await scores.say(1.5)
        run = (await ended(one, 2))[0]
        assert run["reason"] == "drift"
        assert (await ask(one, "/v1/triggers/default"))["drift"]["drift"] is True
        for number in range(5):  # there and back again, with new labels all the time
            await one.deliver(label(100 + number))
            await scores.say(1.5 if number % 2 else 15.0)
        await settled(one)
        assert len(await runs(one)) == 2
        one.clock.step(601)
        await scores.say(1.5)
        assert (await ended(one, 3))[0]["reason"] == "drift"


async def test_scores_of_another_version_are_no_drift(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await train_first(one)
        await rule(one, drift={"window": 100})
        scores = Scores(one, "mdl_other")
        for sharpness in (6.0, 1.0, 6.0):
            await scores.say(sharpness)
        assert (await ask(one, "/v1/triggers/default"))["drift"] is None


async def test_enough_labels_wait_until_they_have_settled(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one, trigger={"n": N, "min_per_class": 2, "debounce_seconds": 60})
        await one.deliver_batch([label(number, "evaluation") for number in range(20)])
        for number in range(N):
            await one.deliver(label(number))
            one.clock.step(5)
        await settled(one)
        assert not await runs(one)
        assert "settles" in (await ask(one, "/v1/triggers/default"))["missing"]
        one.clock.step(60)
        assert len(await ended(one)) == 1
        await one.deliver_batch([label(number) for number in range(N, 3 * N)])  # twice as many do not wait
        assert len(await ended(one, 2)) == 2
