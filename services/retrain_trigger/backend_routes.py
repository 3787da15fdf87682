"""What whoever trains elsewhere may tell: a signed callback, and hints of Azure ML by way of Event Grid."""

from typing import Any

import orjson
import structlog
from fastapi import APIRouter, Request
from pydantic import ValidationError

from services.contracts.problem import Problem, not_found
from services.contracts.signatures import TOLERANCE, BadSignature, verified
from services.retrain_trigger.backends import Backend
from services.retrain_trigger.backends.webhook import Callback, WebhookBackend
from services.retrain_trigger.runs import IllegalTransition, Runs, ended, run_key
from services.runtime.http import StrictRoute
from services.runtime.service import transact
from services.runtime.unit import Unit

log = structlog.get_logger()

CALLBACK = "/v1/runs/{run}:callback"
HINT = "/hints/azureml"
SIGNED = {"www-authenticate": "Signature"}
KEPT = 100  # callbacks of a run that are remembered


def routes(runs: Runs, backend: Backend) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)
    service = runs.service

    @router.post(CALLBACK, status_code=202)
    async def callback(run: str, request: Request) -> dict[str, Any]:
        if not isinstance(backend, WebhookBackend):
            detail = "No trainer calls back here: the backend is not `webhook`."
            raise Problem(401, "unauthorized", detail, headers=SIGNED)
        body = await request.body()
        try:
            message = verified(backend.key, request.headers, body, service.clock.now())
        except BadSignature as error:
            raise Problem(401, "bad-signature", f"The callback is not believed: {error}.", headers=SIGNED) from error
        said = _read(body)
        applied = await transact(service, lambda unit: _note(runs, unit, run, message, said))
        log.info("callback", run=run, state=said.state, applied=applied)
        if not applied:
            raise IllegalTransition(run, (await runs.get(run) or {})["state"])
        backend.told(run)
        return {"run_id": run, "state": said.state}

    @router.post(HINT, include_in_schema=False)
    async def hint(request: Request) -> dict[str, str]:
        if not service.from_sidecar(request):
            raise Problem(401, "unauthorized", "Only this service's own sidecar may deliver events.")
        # Whatever it is, it is only a hint: the job itself is asked, and what cannot be read is no loss.
        if (told := getattr(backend, "told", None)) and (run := _run_of(await request.body())):
            told(run)
        return {"status": "SUCCESS"}

    return router


async def _note(runs: Runs, unit: Unit, run: str, message: str, said: Callback) -> bool:
    """Remember a callback, once; whether it counts: it does not when the run has ended. Problems: 404, 409."""
    key = f"cbk:{message}"
    found = await unit.get_many([key, run_key(run)])
    record = found.get(run_key(run))
    if record is None:
        raise not_found("run", run)
    # A try that met a conflict may have left the key alone; what counts for this run is in its own record.
    known = any(row["message"] == message for row in record.get("callbacks", []))
    if known or (key in found and found[key]["run"] != run):
        raise Problem(409, "replayed", "This callback has come before; every message has a webhook-id of its own.")
    applied = not ended(record)
    now = runs.service.clock.now().isoformat()
    row = {**said.model_dump(), "message": message, "at": now, "applied": applied}
    changes: dict[str, Any] = {"callbacks": [*record.get("callbacks", []), row][-KEPT:]}
    if applied and said.state == "failed":
        changes["callback"] = row
    await unit.get(key)
    unit.put(key, {"run": run}, guard=True, ttl=2 * TOLERANCE)
    unit.put(run_key(run), {**record, **changes}, guard=True)
    return applied


def _read(body: bytes) -> Callback:
    try:
        return Callback.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        raise Problem(422, "invalid", f"/{'/'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _run_of(body: bytes) -> str | None:
    """The run of a CloudEvent Microsoft.MachineLearningServices.RunCompleted or RunStatusChanged."""
    try:
        event = orjson.loads(body)
        known = str(event["type"]).startswith("Microsoft.MachineLearningServices.Run")
        return str(event["data"]["runId"]) if known else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
