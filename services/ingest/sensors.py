"""Samples from the site's message broker, by the input binding `sensors`: one message, one sample.

The topic is `halfsure/PROJECT/STREAM` or `halfsure/PROJECT/DEVICE/STREAM`; the payload is the image as it is, or a
table's row as JSON.
"""

import structlog
from fastapi import Request, Response

from services.contracts.ids import digest, sha256
from services.contracts.problem import Problem
from services.ingest.samples import Samples
from services.runtime.errors import Drop, Retry
from services.runtime.service import Service

log = structlog.get_logger()

ROUTE = "/sensors"  # the binding's name


def sensors(samples: Samples) -> None:
    """Listen. A message that can never be a sample goes to the shelf and is acknowledged: unacknowledged, MQTT has
    no way to put it aside, and twenty such stop all others."""
    service = samples.service

    @service.api.post(ROUTE, include_in_schema=False)
    async def receive(request: Request) -> Response:
        if not service.from_sidecar(request):
            raise Problem(401, "unauthorized", "Only this service's own sidecar may deliver messages.")
        topic, payload = request.headers.get("topic", ""), await request.body()
        try:
            await _take(samples, topic, payload)
        except Retry as error:
            log.warning("a message must come again", topic=topic, reason=str(error))
            return Response(status_code=503)
        except (Problem, Drop) as error:
            await shelve(service, topic, payload, str(error))
        return Response(status_code=200)


async def shelve(service: Service, topic: str, payload: bytes, reason: str) -> None:
    """Put a message aside that can never be a sample. The shelf holds text: the message itself is kept as content."""
    sha = sha256(payload)
    uri = await service.blobs.put(f"refused/sensors/{sha}", payload)
    letter = {"id": f"{topic}|{sha}", "topic": topic, "content": {"uri": uri, "sha256": sha, "bytes": len(payload)}}
    await service.deadletters.add(topic, letter, payload, reason)
    log.warning("dead letter", topic=topic, reason=reason)


class UnknownTopic(Drop):
    """This topic names no project and no stream."""


async def _take(samples: Samples, topic: str, payload: bytes) -> None:
    match topic.split("/"):
        case ["halfsure", project, *device, stream] if project and stream and len(device) < 2 and all(device):
            document = await samples.service.projects.named(project)
        case _:
            raise UnknownTopic(f"{topic!r} is neither halfsure/PROJECT/STREAM nor halfsure/PROJECT/DEVICE/STREAM")
    draft = samples.gate(document).payload(payload, {"stream_id": stream, "device_id": "".join(device) or None})
    name = f"req_{digest(topic, draft.sha256)}"
    (outcome,) = await samples.admit(document, [draft], [name])
    if isinstance(outcome, Problem) and outcome.status == 507:
        raise Retry(outcome.detail)  # the broker keeps it
    if isinstance(outcome, Problem):
        raise outcome
