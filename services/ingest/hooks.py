"""What happens to content before it is stored: a chain of functions (bytes, media type) -> bytes, by configuration.

Own ones are entry points of the group `halfsure.ingest_hooks`; `downscale` is built in. Where one fails, nothing is
stored.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog
from PIL import Image

from services.contracts.hooks import Refused
from services.contracts.problem import Problem
from services.ingest.admission import Draft, Gate
from services.ingest.settings import IngestSettings
from services.runtime import plugins

log = structlog.get_logger()

GROUP = "halfsure.ingest_hooks"
Hook = Callable[[bytes, str], bytes]


class UnknownHook(Exception):
    """The configuration names a hook that is not installed."""


def downscale(content: bytes, media_type: str, *, side: int, quality: int) -> bytes:
    """An image with a longer side of `side` pixels at most, compressed again; smaller ones stay as they are."""
    if not media_type.startswith("image/"):
        return content
    with Image.open(io.BytesIO(content)) as picture:
        if max(picture.size) <= side:
            return content
        form = picture.format or "PNG"
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, form, quality=quality)
    return file.getvalue()


def chain(settings: IngestSettings) -> list[Hook]:
    """The hooks in the order that they are named in. Raises UnknownHook: without its redaction no ingest starts."""
    points = plugins.installed(GROUP)
    small = partial(downscale, side=settings.downscale_side, quality=settings.downscale_quality)
    found: list[Hook] = []
    for name in settings.hooks:
        if name != "downscale" and name not in points:
            raise UnknownHook(f"{name!r} is no entry point of {GROUP}; there are {', '.join(sorted(points)) or 'none'}")
        found.append(small if name == "downscale" else points[name].load())
    return found


def passed(hooks: Sequence[Hook], gate: Gate, draft: Draft) -> Draft | Problem:
    """The draft with what the hooks made of its content, which is then its identity; or why it must not be stored."""
    content = draft.content
    try:
        for hook in hooks:
            content = hook(content, draft.media_type)
        if content == draft.content:
            return draft
        if draft.is_point:
            raise Refused("a hook may refuse a point of a stream, and not change it")
        return replace(gate.draft(content, draft.media_type, draft.meta), request_id=draft.request_id)
    except Refused as refused:
        return Problem(403, "hook-refused", f"This must not be stored: {refused}.")
    except Problem as problem:
        return problem
    except Exception as error:
        log.error("a hook failed, so nothing is stored", exc_info=error)
        return Problem(503, "hook-failed", "A hook of this ingest has failed, so nothing is stored.")
