"""Identities: the same content, wherever and whenever it is seen, has the same id."""

import base64
import hashlib
import uuid
from functools import lru_cache

EVENT_NAMESPACE = uuid.UUID("6e1b8f0a-1d53-5d0e-9a55-0b1f0c7a51ed")


def digest(*parts: str) -> str:
    """26 base32 characters (130 bits) of the sha256 over length-prefixed `parts`; lower case."""
    hashed = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        hashed.update(len(raw).to_bytes(8, "big") + raw)
    # 20 of the 32 bytes make 32 characters without padding.
    return base64.b32encode(hashed.digest()[:20]).decode()[:26].lower()


def sample_id(project: str, key: str) -> str:
    """`key` is the content's sha256, a stream's `site/stream/sequence`, or a table row's own key."""
    return f"smp_{digest(project, key)}"


@lru_cache(maxsize=4096)
def task_id(project: str, sample: str) -> str:
    """A sample has one task in a project, however often it is queued."""
    return f"tsk_{digest(project, sample)}"


def annotation_id(task: str, annotator: str, epoch: int, revises: str = "") -> str:
    """One answer a lease, and one for each answer that it takes the place of."""
    return f"ann_{digest(task, annotator, str(epoch), *filter(None, [revises]))}"


def round_id(project: str, number: int) -> str:
    return f"rnd_{digest(project, str(number))}"


def run_id(project: str, snapshot_sha256: str, params_sha256: str) -> str:
    """The same data and parameters never train twice, because they are the same run."""
    return f"run_{digest(project, snapshot_sha256, params_sha256)}"


def model_version(project: str, run: str, artefact_sha256: str) -> str:
    return f"mdl_{digest(project, run, artefact_sha256)}"


def event_id(event_type: str, key: str) -> str:
    """uuid5, so that publishing the same fact again carries the same id."""
    # What uuid.uuid5 does, without a UUID object: it is made for every event.
    raw = bytearray(
        hashlib.sha1(EVENT_NAMESPACE.bytes + f"{event_type}|{key}".encode(), usedforsecurity=False).digest()
    )
    raw[6] = raw[6] & 0x0F | 0x50
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
