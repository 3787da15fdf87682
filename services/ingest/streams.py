"""Points of streams on their way to be samples: kept until their window is whole, which is the sample."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.contracts.ids import sample_id, sha256
from services.contracts.problem import Problem, invalid
from services.ingest.admission import Draft, Meta, canonical, identity
from services.ingest.windows import Stream
from services.runtime.service import Service, transact
from services.runtime.unit import Unit


@dataclass(frozen=True)
class Assembled:
    """What points have come to: windows to be stored, and of each draft, the window that it completes or why not."""

    windows: list[Draft]
    own: list[Draft | Problem | dict[str, Any]]


class Streams:
    """The latest points of every stream, in one record each."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def assemble(self, project: str, length: int, drafts: Sequence[Draft]) -> Assembled:
        """Keep the points; a crash before their windows are stored is mended by whoever sends a point again.

        `own` holds, in order of the drafts, the sample that a point is, a problem, or how far its window has come.
        """
        by_stream: dict[str, list[Draft]] = defaultdict(list)
        for draft in drafts:
            by_stream[_key(project, self._site, draft)].append(draft)

        async def work(unit: Unit) -> dict[str, Stream]:
            records = await unit.get_many(by_stream)
            streams = {}
            for key, points in by_stream.items():
                before = Stream.read(records.get(key), length)
                timely = {_number(draft): _kept(draft) for draft in points if _number(draft) > before.closed}
                after = before.added(timely)
                streams[key] = after if after.completed(timely) else after.trimmed()
                unit.put(key, streams[key].record(), guard=True)
            return streams

        async with self._service.lock(f"streams:{project}"):
            streams: dict[str, Stream] = await transact(self._service, work)
        return self._assembled(project, by_stream, streams, drafts)

    async def made(self, project: str, length: int, windows: Sequence[Draft]) -> None:
        """Note that these are stored, so that a late point does not make them again."""
        by_stream: dict[str, list[int]] = defaultdict(list)
        for window in windows:
            by_stream[_key(project, self._site, window)].append(_number(window))

        async def work(unit: Unit) -> None:
            for key, record in (await unit.get_many(by_stream)).items():
                stream = Stream.read(record, length).added({}, by_stream[key]).trimmed()
                unit.put(key, stream.record(), guard=True)

        async with self._service.lock(f"streams:{project}"):
            await transact(self._service, work)

    @property
    def _site(self) -> str:
        return self._service.settings.siteid

    def _assembled(
        self, project: str, by_stream: dict[str, list[Draft]], streams: dict[str, Stream], drafts: Sequence[Draft]
    ) -> Assembled:
        windows: dict[str, Draft] = {}
        for key, points in by_stream.items():
            sent = {_number(draft): draft for draft in points}
            for end in streams[key].completed(sent):
                window = self._window(project, points[0], streams[key], end, sent.get(end))
                windows[window.sample_id] = window
        own = [self._own(draft, streams[_key(project, self._site, draft)], windows) for draft in drafts]
        return Assembled(list(windows.values()), own)

    def _window(self, project: str, sibling: Draft, stream: Stream, end: int, sent: Draft | None) -> Draft:
        """The window as a sample: of its last point, whether that came now or before."""
        content = canonical(stream.rows(end))
        draft = sent or _again(project, sibling, self._site, end, stream.points[end])
        return replace(draft, content=content, sha256=sha256(content), row=None)

    def _own(self, draft: Draft, stream: Stream, windows: dict[str, Draft]) -> Draft | Problem | dict[str, Any]:
        number = _number(draft)
        if draft.sample_id in windows:
            return windows[draft.sample_id]
        if number in stream.made:
            return draft
        if number not in stream.points:
            detail = f"The stream is at {max(stream.points)}; a point that far behind completes nothing. "
            return invalid("/sequence", "too-late", detail + "Does its count start anew? Then it is another stream_id.")
        told = {"sample_id": draft.sample_id, "state": "GATHERING", "points": stream.gathered(number)}
        return {**told, "of": stream.length, "stream_id": draft.meta.stream_id, "sequence": number}


def _key(project: str, site: str, draft: Draft) -> str:
    return f"stream:{project}:{site}/{draft.meta.stream_id}"


def _number(draft: Draft) -> int:
    assert draft.meta.sequence is not None  # what makes a draft a point
    return draft.meta.sequence


def _kept(draft: Draft) -> dict[str, Any]:
    """What must be known of a point when its window is completed later."""
    meta = draft.meta.model_dump(mode="json", include={"device_id", "tags", "attributes", "trigger"}, exclude_none=True)
    return {"row": draft.row, "captured_at": draft.captured_at.isoformat(), "meta": meta}


def _again(project: str, sibling: Draft, site: str, number: int, point: Any) -> Draft:
    """The draft of a point that came before, beside one of the same stream."""
    meta = Meta.model_validate({**point["meta"], "stream_id": sibling.meta.stream_id, "sequence": number})
    name = sample_id(project, identity(meta, "", site))
    when = datetime.fromisoformat(point["captured_at"])
    return replace(sibling, sample_id=name, captured_at=when, meta=meta, request_id=f"{sibling.request_id}.{number}")
