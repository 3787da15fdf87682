"""Trainings elsewhere: Azure ML by its real SDK, and whoever answers at a URL; both over the blob store."""

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from azureml import Workspace
from conftest import Running, wait_until
from training import N, ask, ended, evaluation, label, make, running, runs, settled, stored_labels

from services.contracts.events import TrainingRequested, TrainingSucceeded
from services.contracts.signatures import SIGNATURE, key_of, signed, verified
from services.retrain_trigger.backends import Backend
from services.retrain_trigger.backends.azureml import AzureMlBackend, AzureMlUnset, job_of, offline_faults
from services.retrain_trigger.backends.exchange import Exchange
from services.retrain_trigger.backends.remote import carry_out
from services.retrain_trigger.backends.webhook import WebhookBackend, WebhookUnset
from services.retrain_trigger.settings import AzureMlSettings, RetrainTriggerSettings, WebhookSettings
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryJobs, MemoryPeers, MemoryState, SteppedClock
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.ports import Ports, Put

pytestmark = [pytest.mark.usefixtures("brisk"), pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]

OWN = AzureMlSettings(
    subscription="sub",
    resource_group="rg",
    workspace="ws",
    compute="cpu",
    environment="azureml:halfsure-train:3",
    client_id="00000000-0000-0000-0000-000000000001",
    blobs="https://account.blob.core.windows.net/halfsure",
    poll_seconds=0.05,
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw"
HOOK = WebhookSettings(url="http://127.0.0.1/train", secret=SECRET, callback_url="http://halfsure.test")  # type: ignore[arg-type]
SETTINGS = RetrainTriggerSettings(follow_seconds=0.5, training_timeout=1800)


def azure(workspace: Workspace, ports: Ports, own: AzureMlSettings = OWN) -> AzureMlBackend:
    return AzureMlBackend(lambda: ports.blobs, SETTINGS, own, workspace.client())


async def labelled(one: Running) -> None:
    await make(one, training={"head": "logistic"})
    events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(N))])
    await one.deliver_batch(events[:20])
    await one.deliver_batch(events[20:])


async def test_a_run_is_one_job_of_azure_ml(tmp_path: Path, ports: Ports) -> None:
    workspace = Workspace()
    async with running(tmp_path, azure(workspace, ports), ports) as one:
        await labelled(one)
        name = (await wait_until(lambda: list(workspace.jobs)))[0]
        (run,) = await runs(one)
        assert name == run["run_id"]
        job = workspace.jobs[name]["properties"]
        assert job["computeId"].endswith("/workspaces/ws/computes/cpu")
        assert job["environmentId"].endswith("/environments/halfsure-train/versions/3")
        assert job["identity"] == {"identityType": "Managed", "clientId": OWN.client_id}
        assert job["limits"]["timeout"] == "PT30M"
        assert job["environmentVariables"] == {"HALFSURE_BLOBS": OWN.blobs}
        work, record = (job["inputs"][part]["value"] for part in ("work", "record"))
        workspace.set(name, "Running")
        await settled(one)
        assert [row["state"] for row in await runs(one)] == ["RUNNING"]
        # What the job's node would do.
        assert await carry_out(work, record, one.blobs, tmp_path / "node") == 0
        workspace.set(name, "Completed")
        (run,) = await ended(one)
        assert (run["state"], run["promoted"], run["backend"]) == ("SUCCEEDED", True, "azureml"), run
        assert workspace.count("PUT") == 1
        assert {path.rsplit("/", 2)[1] for _, path in workspace.requests} == {"jobs"}


async def test_asking_again_submits_nothing(tmp_path: Path, ports: Ports) -> None:
    workspace = Workspace()
    backend = azure(workspace, ports)
    async with running(tmp_path, backend, ports) as one:
        await labelled(one)
        await wait_until(lambda: workspace.jobs)
        (run,) = await runs(one)
        given = await Exchange(lambda: ports.blobs).take(_input(workspace, run["run_id"], "work"))
        for _ in range(3):
            assert await backend.submit(given) == run["run_id"]
        assert workspace.count("PUT") == 1
    again = azure(workspace, ports)
    async with running(tmp_path, again, ports) as one:
        await settled(one)
        assert workspace.count("PUT") == 1
        assert [row["state"] for row in await runs(one)] == ["RUNNING"]


def _input(workspace: Workspace, name: str, part: str) -> str:
    return workspace.jobs[name]["properties"]["inputs"][part]["value"]


@pytest.mark.parametrize(
    ("status", "state", "says"),
    [("Failed", "FAILED", "is Failed, and left no record"), ("Canceled", "CANCELLED", None)],
)
async def test_a_job_that_ends_badly_ends_its_run(
    tmp_path: Path, ports: Ports, status: str, state: str, says: str | None
) -> None:
    workspace = Workspace()
    async with running(tmp_path, azure(workspace, ports), ports) as one:
        await labelled(one)
        name = (await wait_until(lambda: list(workspace.jobs)))[0]
        workspace.set(name, status)
        (run,) = await ended(one)
        assert run["state"] == state
        assert says is None or says in run["error"]


async def test_a_refused_job_fails_its_run_and_a_workspace_that_is_away_does_not(tmp_path: Path, ports: Ports) -> None:
    workspace = Workspace()
    workspace.away = True
    async with running(tmp_path, azure(workspace, ports), ports) as one:
        await labelled(one)
        await wait_until(lambda: len(workspace.requests) > 1)
        assert [row["state"] for row in await runs(one)] == ["REQUESTED"]
        workspace.refusal = {"code": "UserError", "message": "The compute cpu is not there."}
        workspace.away = False
        (run,) = await ended(one)
        assert run["state"] == "FAILED"
        assert "The compute cpu is not there" in run["error"]


async def test_a_run_that_is_cancelled_cancels_its_job(tmp_path: Path, ports: Ports) -> None:
    workspace = Workspace()
    async with running(tmp_path, azure(workspace, ports), ports) as one:
        await labelled(one)
        name = (await wait_until(lambda: list(workspace.jobs)))[0]
        assert (await one.call("POST", f"/v1/runs/{name}:cancel")).status_code == 202
        (run,) = await ended(one)
        assert run["state"] == "CANCELLED"
        assert ("POST", "cancel") in [(method, path.rsplit("/", 1)[1]) for method, path in workspace.requests]


async def test_an_event_of_event_grid_has_the_job_looked_at_at_once(tmp_path: Path, ports: Ports) -> None:
    workspace = Workspace()
    slow = azure(workspace, ports, OWN.model_copy(update={"poll_seconds": 3600.0}))
    slow._settings = SETTINGS  # follow_seconds: one look lasts half a second at most
    async with running(tmp_path, slow, ports) as one:
        await labelled(one)
        name = (await wait_until(lambda: list(workspace.jobs)))[0]
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "/subscriptions/sub",
            "type": "Microsoft.MachineLearningServices.RunStatusChanged",
            "data": {"runId": name, "runStatus": "Failed", "experimentName": "halfsure"},
        }
        workspace.set(name, "Failed")
        token = {"dapr-api-token": "sidecar-token"}
        assert (await one.client.post("/hints/azureml", json=event)).status_code == 401
        for body in (orjson.dumps(event), b"nonsense", b"[]", b'{"type": 1}'):
            answer = await one.client.post("/hints/azureml", content=body, headers=token)
            assert answer.json() == {"status": "SUCCESS"}
        (run,) = await ended(one)
        assert run["state"] == "FAILED"


async def test_what_azure_ml_would_find_wrong_is_found_before(tmp_path: Path, ports: Ports) -> None:
    workspace = Workspace()
    async with running(tmp_path, azure(workspace, ports), ports) as one:
        await labelled(one)
        name = (await wait_until(lambda: list(workspace.jobs)))[0]
        work = await Exchange(lambda: ports.blobs).take(_input(workspace, name, "work"))
    job = job_of(work, "blob:work", OWN, SETTINGS)
    assert offline_faults(job) == []
    for change, says in (
        ({"compute": ""}, "compute: none is set"),
        ({"environment": "azureml:halfsure-train@latest"}, "environment: azureml:NAME:VERSION"),
        ({"environment": ""}, "environment"),
    ):
        faults = offline_faults(job_of(work, "blob:work", OWN.model_copy(update=change), SETTINGS))
        assert any(says in fault for fault in faults), (change, faults)
    job.command = "python train.py ${{inputs.work}} ${{inputs.nope}} ${{outputs.model}}"
    assert offline_faults(job) == ["command: there is no input 'nope'", "command: there is no output 'model'"]
    refused = azure(Workspace(), ports, OWN.model_copy(update={"compute": ""}))
    with pytest.raises(Exception, match="compute: none is set"):
        await refused.submit(work)


def test_what_is_not_set_is_named() -> None:
    with pytest.raises(AzureMlUnset, match="AZUREML_SUBSCRIPTION, HALFSURE_RETRAIN_TRIGGER_AZUREML_WORKSPACE"):
        AzureMlBackend(dict, SETTINGS, AzureMlSettings(resource_group="rg"))  # type: ignore[arg-type]
    with pytest.raises(WebhookUnset, match="_URL"):
        WebhookBackend(dict, SETTINGS, WebhookSettings())  # type: ignore[arg-type]
    with pytest.raises(WebhookUnset, match="_SECRET: a secret is whsec_"):
        WebhookBackend(dict, SETTINGS, WebhookSettings(url="http://x", secret="whsec_AAAA"))  # type: ignore[arg-type]


def test_without_the_packages_a_sentence_says_which_extra_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    monkeypatch.delitem(sys.modules, "services.retrain_trigger.backends.azureml")
    with pytest.raises(SystemExit, match=r"halfsure\[retrain-trigger,azureml\]"):
        importlib.import_module("services.retrain_trigger.backends.azureml")


def test_nothing_of_azure_ml_is_imported_unless_it_is_chosen() -> None:
    asked = "import sys, services.retrain_trigger.app; print([n for n in sys.modules if n.startswith('azure.ai')])"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


class Trainer:
    """Somebody's service, on the other side of the wire: takes signed requests."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.status = 202

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        from datetime import UTC, datetime

        self.ids.append(verified(key_of(SECRET), request.headers, request.content, datetime.now(UTC)))
        if self.status < 300:
            self.asked.append(json.loads(request.content)["data"])
        return httpx2.Response(self.status, text="so be it")


Called = Callable[..., Any]


def hook(trainer: Trainer, ports: Ports) -> Backend:
    return WebhookBackend(lambda: ports.blobs, SETTINGS, HOOK, trainer.client())


async def call_back(one: Running, run: str, message: str = "msg_1", key: bytes | None = None, **body: Any) -> Any:
    raw = orjson.dumps(body)
    headers = signed(key or key_of(SECRET), message, one.clock.now(), raw)
    return await one.client.post(f"/v1/runs/{run}:callback", content=raw, headers=headers)


async def asked(one: Running, trainer: Trainer) -> dict[str, Any]:
    await labelled(one)
    return (await wait_until(lambda: trainer.asked))[0]


async def test_a_webhook_is_asked_by_a_signed_message_and_calls_back(tmp_path: Path, ports: Ports) -> None:
    trainer = Trainer()
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        order = await asked(one, trainer)
        run = order["run_id"]
        assert trainer.ids == [run]
        assert order["callback"] == f"http://halfsure.test/v1/runs/{run}:callback"
        assert (await call_back(one, run, "msg_0", state="running")).status_code == 202
        assert await carry_out(order["work_uri"], order["record_uri"], one.blobs, tmp_path / "node") == 0
        assert (await call_back(one, run, state="succeeded")).status_code == 202
        (row,) = await ended(one)
        assert (row["state"], row["promoted"], row["backend"]) == ("SUCCEEDED", True, "webhook"), row
        assert [said["state"] for said in row["callbacks"]] == ["running", "succeeded"]
        assert len(trainer.asked) == 1


async def test_a_lost_callback_costs_nothing_but_time(tmp_path: Path, ports: Ports) -> None:
    trainer = Trainer()
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        order = await asked(one, trainer)
        assert await carry_out(order["work_uri"], order["record_uri"], one.blobs, tmp_path / "node") == 0
        (row,) = await ended(one)
        assert row["state"] == "SUCCEEDED"


async def test_a_callback_is_believed_once_and_only_signed(tmp_path: Path, ports: Ports) -> None:
    trainer = Trainer()
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        run = (await asked(one, trainer))["run_id"]
        forged = await call_back(one, run, key=b"another key of 24 bytes!", state="failed")
        assert (forged.status_code, forged.json()["title"]) == (401, "bad signature")
        assert (await one.client.post(f"/v1/runs/{run}:callback", json={"state": "failed"})).status_code == 401
        assert (await call_back(one, run, state="exploded")).status_code == 422
        assert (await call_back(one, "run_none", state="running")).status_code == 404
        assert (await call_back(one, run, state="running")).status_code == 202
        replayed = await call_back(one, run, state="running")
        assert (replayed.status_code, replayed.json()["title"]) == (409, "replayed")
        raw = orjson.dumps({"state": "failed"})
        old = signed(key_of(SECRET), "msg_2", one.clock.now(), raw)
        one.clock.step(301)
        late = await one.client.post(f"/v1/runs/{run}:callback", content=raw, headers=old)
        assert late.status_code == 401
        tampered = {**signed(key_of(SECRET), "msg_3", one.clock.now(), raw), SIGNATURE: "v1,AAAA"}
        assert (await one.client.post(f"/v1/runs/{run}:callback", content=raw, headers=tampered)).status_code == 401
        assert [row["state"] for row in await runs(one)] == ["RUNNING"]


async def test_a_callback_whose_first_try_meets_a_conflict_counts_once(tmp_path: Path, ports: Ports) -> None:
    """Somebody writes the run's record meanwhile: the store then keeps the mark of the message, and not the rest."""
    trainer = Trainer()
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        run = (await asked(one, trainer))["run_id"]
        await wait_until(lambda: _state(one, "RUNNING"))
        commit, marks = one.state.commit, []

        async def overtaken(ops: Any) -> None:
            if any(op.key == "cbk:msg_1" for op in ops):
                marks.append(len(ops))
                if len(marks) == 1:
                    record = (await one.state.get([f"run:{run}"]))[f"run:{run}"].value
                    await commit([Put(f"run:{run}", record)])
            await commit(ops)

        one.state.commit = overtaken  # type: ignore[method-assign]
        assert (await call_back(one, run, state="failed", error="out of memory")).status_code == 202
        assert len(marks) == 2
        assert "cbk:msg_1" in one.state.rows()
        (row,) = await ended(one)
        assert (row["state"], row["error"]) == ("FAILED", "out of memory")
        assert [said["message"] for said in row["callbacks"]] == ["msg_1"]
        assert (await call_back(one, run, state="failed", error="out of memory")).json()["title"] == "replayed"


async def test_a_callback_that_says_failed_ends_the_run_and_a_late_one_is_recorded_only(
    tmp_path: Path, ports: Ports
) -> None:
    trainer = Trainer()
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        run = (await asked(one, trainer))["run_id"]
        assert (await call_back(one, run, state="failed", error="out of memory")).status_code == 202
        (row,) = await ended(one)
        assert (row["state"], row["error"]) == ("FAILED", "out of memory")
        late = await call_back(one, run, "msg_2", state="succeeded")
        assert (late.status_code, late.json()["title"]) == (409, "illegal transition")
        row = await ask(one, f"/v1/runs/{run}")
        assert row["state"] == "FAILED"
        assert [(said["state"], said["applied"]) for said in row["callbacks"]] == [
            ("failed", True),
            ("succeeded", False),
        ]


async def test_a_trainer_that_refuses_fails_the_run_and_one_that_is_busy_is_asked_again(
    tmp_path: Path, ports: Ports
) -> None:
    trainer = Trainer()
    trainer.status = 503
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        await labelled(one)
        await wait_until(lambda: len(trainer.ids) >= 2, 20)
        assert set(trainer.ids) == {(await runs(one))[0]["run_id"]}
        trainer.status = 422
        (row,) = await ended(one)
        assert row["state"] == "FAILED"
        assert "answered 422: so be it" in row["error"]


async def test_a_trainer_that_says_nothing_is_given_up(tmp_path: Path, ports: Ports) -> None:
    trainer = Trainer()
    async with running(tmp_path, hook(trainer, ports), ports) as one:
        await asked(one, trainer)
        await wait_until(lambda: _state(one, "RUNNING"))
        one.clock.step(1801)
        (row,) = await ended(one)
        assert (row["state"], row["error"]) == ("FAILED", "no outcome after 1800 s")


async def _state(one: Running, state: str) -> bool:
    return [row["state"] for row in await runs(one)] == [state]


def fresh() -> Ports:
    clock = SteppedClock()
    return Ports(
        MemoryState(clock), MemoryBus(), MemoryBlobs(), clock, MemoryPeers(), MemoryWorkflows(), jobs=MemoryJobs()
    )


async def test_whoever_trains_the_request_and_the_result_are_the_same(tmp_path: Path) -> None:
    """Here, in a job of Azure ML and behind a webhook: the same run, the same model, the same events."""
    requested, succeeded = {}, {}
    for name in ("local", "azureml", "webhook"):
        folder, ports, workspace, trainer = tmp_path / name, fresh(), Workspace(), Trainer()
        folder.mkdir()
        others = {"azureml": lambda w=workspace, p=ports: azure(w, p), "webhook": lambda t=trainer, p=ports: hook(t, p)}
        backend = others[name]() if name in others else None
        async with running(folder, backend, ports) as one:
            await labelled(one)
            if name != "local":
                order = await wait_until(lambda w=workspace, t=trainer: _ordered(w, t))
                assert await carry_out(*order, one.blobs, folder / "node") == 0
            (run,) = await ended(one, seconds=60)
            assert (run["state"], run["backend"]) == ("SUCCEEDED", name), run
            told = await one.published()
            requested[name], succeeded[name] = (
                [envelope["data"] for _, envelope in told if envelope["type"] == kind.type]
                for kind in (TrainingRequested, TrainingSucceeded)
            )
    assert requested["local"] == requested["azureml"] == requested["webhook"]
    assert succeeded["local"] == succeeded["azureml"] == succeeded["webhook"]
    assert len(requested["local"]) == len(succeeded["local"]) == 1


def _ordered(workspace: Workspace, trainer: Trainer) -> tuple[str, str] | None:
    """Where the work is and where the record goes, as whoever trains has been told."""
    if trainer.asked:
        return trainer.asked[0]["work_uri"], trainer.asked[0]["record_uri"]
    name = next(iter(workspace.jobs), None)
    return name and (_input(workspace, name, "work"), _input(workspace, name, "record"))


async def test_no_callback_is_taken_by_another_backend(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        assert (await call_back(one, "run_1", state="running")).status_code == 401
        await asyncio.sleep(0)
