"""The samples without a label, which a head may learn from too: asked of ingest, pinned for the run."""

import asyncio
from collections.abc import Collection

import orjson
import structlog

from services.contracts.ids import sha256
from services.retrain_trigger.backends import PoolSample
from services.runtime.errors import Unavailable
from services.runtime.ports import Blobs, Peers

log = structlog.get_logger()

PAGE = 500


async def listed(peers: Peers, project: str, without: Collection[str], most: int, patience: float) -> list[PoolSample]:
    """Up to `most` stored samples not in `without`, by id; none when ingest stays away for `patience` seconds."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await _listed(peers, project, without, most)
        except Unavailable as error:
            if asyncio.get_running_loop().time() >= deadline:
                log.warning("training without the unlabelled samples", project=project, reason=str(error))
                return []
            await asyncio.sleep(0.5)


async def pin(blobs: Blobs, project: str, pool: list[PoolSample]) -> dict[str, str | int]:
    """Keep the list, so that the run is the same however often it is begun."""
    rows = [[one.sample_id, one.uri, one.sha256, one.media_type] for one in pool]
    content = orjson.dumps(rows)
    sha = sha256(content)
    uri = await blobs.put(f"snapshots/{project}/pool-{sha}.json", content)
    return {"uri": uri, "sha256": sha, "count": len(rows)}


def without(content: bytes, gone: Collection[str]) -> bytes:
    """A pinned list without some samples."""
    return orjson.dumps([row for row in orjson.loads(content) if row[0] not in gone])


async def pinned(blobs: Blobs, uri: str) -> tuple[PoolSample, ...]:
    return tuple(PoolSample(*row) for row in orjson.loads(await blobs.get(uri)))


async def _listed(peers: Peers, project: str, without: Collection[str], most: int) -> list[PoolSample]:
    found: dict[str, PoolSample] = {}
    cursor: str | None = None
    while len(found) < most:
        params = {"project": project, "state": "STORED", "limit": str(PAGE), **({"cursor": cursor} if cursor else {})}
        try:
            answer = await peers.get("ingest", "v1/samples", params)
        except KeyError as error:  # ingest has not heard of the project yet
            raise Unavailable(f"ingest does not know project {project}") from error
        for row in answer["items"]:
            if row["sample_id"] not in without:
                content = row["content"]
                sample = PoolSample(row["sample_id"], content["uri"], content["sha256"], content["media_type"])
                found[sample.sample_id] = sample
        cursor = answer["cursor"]
        if cursor is None:
            break
    return sorted(found.values(), key=lambda one: one.sample_id)[:most]
