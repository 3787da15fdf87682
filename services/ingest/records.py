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
    """201 for a new sample, 200 with the first one's id for one that is known."""
    body = {**view(outcome.record), "duplicate": not outcome.created}
    headers = {"location": f"/v1/samples/{body['sample_id']}?project={project}"}
    status = 201 if outcome.created else 200
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")
