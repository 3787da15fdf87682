"""A sample's story, put together from what the other services publish about it."""

from collections.abc import Sequence
from typing import Any

from services.contracts.envelope import Message
from services.contracts.events import Event, ModelActivation, OfSample
from services.runtime import tracing
from services.runtime.service import Service, transact
from services.runtime.unit import TRACE, Unit

KEPT = 50
"""Events kept of a kind for each sample (and activations for each project); the oldest go first."""
KINDS = (
    "sample.scored",
    "sample.selected",
    "sample.discarded",
    "sample.uploaded",
    "label.accepted",
    "label.retracted",
)
LEFT_OUT = {"project", "sample_id", "content", "embedding_ref"}
VECTOR = ("labels", "probabilities")
"""What a story leaves out, and a prediction has."""
ONCE = ("sample.scored", "sample.selected")
"""Kinds that most samples have one event of, so that the first of them is written without a look."""
PREDICTED = (*VECTOR, "model_version", "task", "detections", "top", "scores", "ood_score", "provider")


def kind_of(event: Event) -> str:
    """`io.halfsure.sample.scored.v1` is `sample.scored`."""
    return event.type.removeprefix("io.halfsure.").rpartition(".")[0]


def line(message: Message[Event]) -> dict[str, Any]:
    """What is kept of an event: no content, no embedding."""
    data = message.event.model_dump(mode="json", exclude_none=True, exclude=LEFT_OUT)
    return {
        "id": message.id,
        "type": kind_of(message.event),
        "time": message.time.isoformat(),
        "source": message.source,
        "device_id": message.deviceid,
        "trace_id": tracing.trace_id(message.traceparent),
        "data": data,
    }


def joined(lines: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`lines` and those of `new` that are not there yet, in order of time, the last KEPT."""
    known = {row["id"]: row for row in [*new, *lines]}
    return sorted(known.values(), key=lambda row: (row["time"], row["id"]))[-KEPT:]


class History:
    """Records `his:{project}:{sample}:{kind}`: kinds apart, so that topics do not meet on a record."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def record(self, batch: Sequence[Message[OfSample]], unit: Unit) -> None:
        """Handler: one read for the batch, one put for each sample in it."""
        by_key: dict[str, list[dict[str, Any]]] = {}
        await self._service.projects.of_batch(batch)
        for message in batch:
            event = message.event
            key = f"his:{event.project}:{event.sample_id}:{kind_of(event)}"
            by_key.setdefault(key, []).append(line(message))
        await _put(unit, by_key, first=all(map(_once, batch)))

    async def activate(self, batch: Sequence[Message[ModelActivation]], unit: Unit) -> None:
        """Handler: an activation or a roll-back belongs to every sample that the version has scored."""
        by_key: dict[str, list[dict[str, Any]]] = {}
        for message in batch:
            await self._service.projects.of_event(message.event)
            by_key.setdefault(f"his:{message.event.project}:activations", []).append(_activation(message))
        await _put(unit, by_key)

    async def erase(self, project: str, sample: str) -> None:
        """Nothing is kept of a withdrawn sample from now on, nor of what is still to be said of it."""
        keys = [f"his:{project}:{sample}:{kind}" for kind in KINDS]

        async def work(unit: Unit) -> None:
            await unit.get_many(keys)
            for key in keys:
                unit.put(key, {"events": [], "erased": True}, guard=True)

        await transact(self._service, work)

    async def lines(self, project: str, samples: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """What is kept of each of the samples, oldest first, in one read."""
        keys = {f"his:{project}:{sample}:{kind}": sample for sample in samples for kind in KINDS}
        rows: dict[str, list[dict[str, Any]]] = {sample: [] for sample in samples}
        for key, entry in (await self._service.state.get(list(keys))).items():
            rows[keys[key]] += map(_told, entry.value["events"])
        return {sample: sorted(told, key=lambda row: row["time"]) for sample, told in rows.items()}

    async def predictions(self, project: str, sample: str) -> list[dict[str, Any]]:
        """What each model version said of a sample, the latest first; an extractor says nothing."""
        key = f"his:{project}:{sample}:sample.scored"
        entry = (await self._service.state.get([key])).get(key)
        rows = [{**row["data"], "at": row["time"]} for row in entry.value["events"]] if entry else []
        said = [{name: row[name] for name in ("at", *PREDICTED) if name in row} for row in rows if "top" in row]
        return said[::-1]

    async def of(self, project: str, record: dict[str, Any]) -> list[dict[str, Any]]:
        """Everything known of a sample, oldest first."""
        sample = record["sample_id"]
        activations = f"his:{project}:activations"
        entries = await self._service.state.get([activations])
        story = [_begin(record), *_end(record), *(await self.lines(project, [sample]))[sample]]
        versions = {row["data"]["model_version"] for row in story if row["type"] == "sample.scored"}
        if activations in entries:
            story += [row for row in entries[activations].value["events"] if row["data"]["version"] in versions]
        return sorted(story, key=lambda row: row["time"])


async def _put(unit: Unit, by_key: dict[str, list[dict[str, Any]]], *, first: bool = False) -> None:
    known = await unit.get_new(by_key) if first else await unit.get_many(by_key)
    for key, new in by_key.items():
        if known.get(key, {}).get("erased"):
            continue
        lines = known.get(key, {"events": []})["events"]
        story = joined(lines, new)
        if story != lines:
            unit.put(key, {"events": story}, guard=True)


def _once(message: Message[Event]) -> bool:
    """Whether it is probably the first of its kind that is said of the sample."""
    return kind_of(message.event) in ONCE and getattr(message.event, "rescore_id", None) is None


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "data": {name: value for name, value in row["data"].items() if name not in VECTOR}}


def _activation(message: Message[ModelActivation]) -> dict[str, Any]:
    row = line(message)
    kept = ("version", "previous", "activation_epoch", "reason")
    return {**row, "data": {name: value for name, value in row["data"].items() if name in kept}}


def _end(record: dict[str, Any]) -> list[dict[str, Any]]:
    """That its content was let go."""
    if "expired" not in record:
        return []
    gone = record["expired"]
    name = f"{record['sample_id']}.expired"
    return [{"id": name, "type": "sample.expired", "time": gone["at"], "data": {"reason": gone["reason"]}}]


def _begin(record: dict[str, Any]) -> dict[str, Any]:
    data = {name: record[name] for name in ("captured_at", "stream_id", "sequence", "tags", "trigger")}
    trace = tracing.trace_id(record.get(TRACE))
    return {
        "id": record["sample_id"],
        "type": "sample.ingested",
        "time": record["stored_at"],
        "device_id": record.get("device_id"),
        "trace_id": trace,
        "data": data,
    }
