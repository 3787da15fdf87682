"""What is left of a withdrawn sample: a tombstone. What was said of it goes, and so does its embedding."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from services.contracts.envelope import Message
from services.contracts.events import Ref, SampleWithdrawn
from services.infer.scoring import claim_key, done_key, gone_key
from services.infer.serving import NONE
from services.infer.wanted import versions_key
from services.runtime.service import Service, transact
from services.runtime.unit import Unit


class Forgetting:
    """The handler of SampleWithdrawn."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def forget(self, batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
        """Handler: a withdrawn sample is never scored again, in whatever order the events come.

        A tombstone stands in the place of what each version has said or may be saying right now: whoever is about
        to write that is in conflict, looks again, and finds the sample gone.
        """
        known = await unit.get_many(versions_key(message.event.project) for message in batch)
        done: list[str] = []
        for message in batch:
            project, sample = message.event.project, message.event.sample_id
            versions = known.get(versions_key(project), {"of": []})["of"]
            done += [done_key(project, sample, version) for version in (NONE, *versions)]
            unit.put(gone_key(project, sample), {"why": message.event.why})
            unit.delete(claim_key(project, sample))
        said = await unit.get_many(done)
        await self._blank(refs(said.values()))
        for key in done:
            unit.put(key, {"state": "WITHDRAWN"}, guard=True)

    async def _blank(self, rows: Mapping[str, Iterable[Ref]]) -> None:
        """Fill rows of embedding blocks with zeros; the other rows are still somebody's.

        What is erased of a block is written down first, and looked at again after the block is written: of two
        replicas that are at the same block the later one erases for both.
        """
        for uri, wanted in rows.items():
            erased = await self._note(uri, {str(ref.row): ref.dim * np.dtype(ref.dtype).itemsize for ref in wanted})
            while True:
                try:
                    content = bytearray(await self._service.blobs.get(uri))
                except KeyError:
                    break
                for row, size in erased.items():
                    content[int(row) * size : (int(row) + 1) * size] = bytes(size)
                await self._service.blobs.replace(uri, bytes(content))
                before, erased = erased, await self._note(uri, {})
                if before == erased:
                    break

    async def _note(self, uri: str, rows: Mapping[str, int]) -> dict[str, int]:
        """Add to what is to be zeros in a block (row -> bytes of a row); all of it."""

        async def work(unit: Unit) -> dict[str, int]:
            known: dict[str, int] = (await unit.get(blank_key(uri)) or {"rows": {}})["rows"]
            if rows.keys() - known.keys():
                unit.put(blank_key(uri), {"rows": {**known, **rows}}, guard=True)
            return {**known, **rows}

        return await transact(self._service, work)


def blank_key(uri: str) -> str:
    return f"blank:{uri.removeprefix('blob:')}"


def refs(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Ref]]:
    """Block -> the rows of it that done records refer to."""
    found: dict[str, list[Ref]] = {}
    for record in records:
        if ref := record.get("event", {}).get("embedding_ref"):
            found.setdefault(ref["uri"], []).append(Ref.model_validate(ref))
    return found
