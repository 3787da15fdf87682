"""Records of samples as callers see them."""

from typing import Any

import orjson
from fastapi import Response

from services.ingest.intake import Outcome

INTERNAL = {"shard", "source", "_unit", "_trace", "_device"}


def view(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what is ingest's own."""
    return {name: value for name, value in record.items() if name not in INTERNAL}


def answer(outcome: Outcome, project: str) -> Response:
    """The sample, new or known by its first id; or how far the window of a point has come."""
    body = {**view(outcome.record), "duplicate": outcome.duplicate}
    headers = {"location": f"/v1/samples/{body['sample_id']}?project={project}"}
    return Response(orjson.dumps(body), outcome.status, headers=headers, media_type="application/json")
