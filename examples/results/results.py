"""Hands each result to the Dapr output binding `results` (docs/policies.md): a service of one's own beside the stack.

Nothing of halfsure is in it. An event comes at least once; its id goes along, so that a receiver can tell repeats.
"""

import base64
import hmac
import json
import logging
from typing import Annotated, Any

import httpx2
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """By the names that Dapr gives; `APP_HOST` is for a cluster's probes and Prometheus, 0.0.0.0."""

    app_host: str = "127.0.0.1"
    app_port: int = 8120
    app_api_token: str = ""
    dapr_api_token: str = ""
    dapr_http_port: int = 3500


settings = Settings()
# Seconds: fewer than the sidecar gives a handler (dapr/resiliency.yaml).
sidecar = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{settings.dapr_http_port}", timeout=10, trust_env=False)
forwarded = Counter("results_forwarded", "Results that the binding has taken")
dropped = Counter("results_dropped", "Results given up: after the last retry, or no events at all")
log = logging.getLogger("results")
app = FastAPI()


def from_sidecar(dapr_api_token: Annotated[str, Header()] = "") -> None:
    if not hmac.compare_digest(dapr_api_token.encode(), settings.app_api_token.encode()):
        raise HTTPException(401, "Only the sidecar may deliver events.")


@app.post("/events/inference-result", dependencies=[Depends(from_sidecar)])
async def forward(delivery: dict[str, Any]) -> dict[str, str]:
    """The subscription is raw: the sidecar puts the event's bytes, as base64, into an envelope of its own."""
    try:
        event = json.loads(base64.b64decode(delivery["data_base64"]))
        # What begins with a capital is a header to bindings.http; by another type the id comes in the event alone.
        headers = {"Content-Type": "application/cloudevents+json", "Ce-Id": str(event["id"])}
    except (KeyError, TypeError, ValueError):
        return {"status": "DROP"}  # to the dead-letter topic, where it is counted
    body = {"operation": "create", "data": event, "metadata": headers}
    try:
        token = {"dapr-api-token": settings.dapr_api_token}
        (await sidecar.post("/v1.0/bindings/results", json=body, headers=token)).raise_for_status()
    except httpx2.HTTPError as error:
        log.warning("%s is not taken: %s", event["id"], error)
        return {"status": "RETRY"}
    forwarded.inc()
    return {"status": "SUCCESS"}


@app.post("/events/dlq", dependencies=[Depends(from_sidecar)])
async def drop(delivery: dict[str, Any]) -> dict[str, str]:
    dropped.inc()
    log.error("dropped: %s", base64.b64decode(delivery.get("data_base64", ""))[:2000])
    return {"status": "SUCCESS"}


@app.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@app.get("/healthz")
@app.get("/readyz")
async def alive() -> None:
    """To the sidecar, and to whoever starts this."""


if __name__ == "__main__":
    uvicorn.run(app, host=settings.app_host, port=settings.app_port, access_log=False)
