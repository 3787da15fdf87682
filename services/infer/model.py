"""A loaded ONNX model: checked against its manifest, warmed up, and asked in batches."""

import hashlib
import logging
import math
from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from services.contracts.manifest import ModelManifest
from services.infer.onnx_bytes import NotOnnx, has_external_data
from services.infer.reading import embedded

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_BATCH = 64
"""Most samples that go through the session at once; a larger batch is cut."""
FLOAT = "tensor(float)"
FALLBACK = "CPUExecutionProvider"
FARTHEST = 4.0
"""Beyond it no side of a box is a fraction of a picture, even of one that is cut off: it is in pixels."""

log = logging.getLogger(__name__)


class ModelMismatch(ValueError):
    """The bytes are not the model that the manifest describes; the message names the difference."""


class Scored(NamedTuple):
    """A model's answers for N samples, float32: probabilities (N, C), embeddings (N, D), margin = p1 - p2 and ood (N,).

    A detector's probabilities are (N, M, C) of M places with boxes (N, M, 4). An extractor gives embeddings only. Where
    a model gives no embedding, its probabilities stand for it, or a `summary` of a detector's.
    """

    probabilities: np.ndarray | None
    embeddings: np.ndarray
    margin: np.ndarray | None = None
    boxes: np.ndarray | None = None
    ood: np.ndarray | None = None


ROLES = ("probabilities", "embedding", "margin", "boxes", "ood")
"""The manifest's names of what `Scored` has, in its order."""
FEW = 8192
"""Values up to which a product finds what is not finite sooner than a look at each; beyond, it would take threads."""


class OnnxModel:
    """One model in one onnxruntime session; `predict` may be called from several threads."""

    def __init__(self, session: "InferenceSession", manifest: ModelManifest) -> None:
        self.manifest = manifest
        self.provider: str = session.get_providers()[0]
        self._session = session
        self._names = list(manifest.outputs.names)
        # Read once: on a tiny model, asking the manifest costs as much as a part of the run.
        self._source, self._shape = manifest.input.name, tuple(manifest.input.sample_shape)
        said = manifest.outputs.model_dump()
        self._of_roles = itemgetter(*(self._names.index(said[role]) if said[role] else -1 for role in ROLES))

    @classmethod
    def load(
        cls, content: bytes, manifest: ModelManifest, providers: Sequence[str] = (FALLBACK,), threads: int = 1
    ) -> "OnnxModel":
        """Check, open and warm up a model. Raises ModelMismatch; blocks, so call it in a thread.

        The first of `providers` that this machine has is used, else the CPU, with one warning.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.sha256:
            raise ModelMismatch(f"sha256 is {found}, the manifest says {manifest.sha256}")
        model = cls(_session(content, providers, threads), manifest)
        _check_input(model._session, manifest)
        _check_outputs(model._session, manifest)
        model._warm_up()
        return model

    def predict(self, batch: np.ndarray) -> Scored:
        """Answers for float32 (N, ...) inputs of the manifest's shape. Raises ValueError on another shape."""
        if batch.shape[1:] != self._shape:
            raise ValueError(f"the input is (N, {', '.join(map(str, self._shape))}), not {batch.shape}")
        values = np.ascontiguousarray(batch, dtype=np.float32)
        if not _finite(values):
            raise ValueError("the input holds values that are not finite")
        scored = Scored._make(self._of_roles((*self._run(values), None)))
        if scored.embeddings is None:
            assert scored.probabilities is not None  # a manifest names one of the two
            return scored._replace(embeddings=embedded(scored.probabilities, self.manifest))
        return scored

    def _run(self, values: np.ndarray) -> Sequence[Any]:
        """One array for each of the manifest's outputs."""
        if len(values) <= MAX_BATCH:
            return self._session.run(self._names, {self._source: values})
        parts = [self._run(values[start : start + MAX_BATCH]) for start in range(0, len(values), MAX_BATCH)]
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _warm_up(self) -> None:
        """One and two zeros-only samples; shapes and values of the answers are what the manifest promises."""
        for count in (1, 2):
            try:
                scored = self.predict(np.zeros((count, *self.manifest.input.sample_shape), np.float32))
            except ValueError:
                raise
            except Exception as error:  # onnxruntime has no public base class of its errors
                raise ModelMismatch(f"the model does not run on {count} sample(s): {error}") from error
            _check_answers(scored, self.manifest, count)


def _finite(values: np.ndarray) -> bool:
    """Whether all are; a product that overflows is no proof that they are not."""
    flat = values.ravel()
    return (flat.size <= FEW and math.isfinite(flat.dot(flat))) or bool(np.isfinite(flat).all())


def _session(content: bytes, providers: Sequence[str], threads: int) -> "InferenceSession":
    """A session on the first provider that works. Raises ModelMismatch where the bytes are no model of their own."""
    import onnxruntime

    try:
        external = has_external_data(content)
    except NotOnnx as error:
        raise ModelMismatch(f"the model is no ONNX file: {error}") from error
    if external:
        raise ModelMismatch("the model refers to external data; all weights must be in the one file")
    available = onnxruntime.get_available_providers()
    chosen = [name for name in providers if name in available]
    if len(chosen) < len(providers):
        _warn_once(", ".join(name for name in providers if name not in available), (chosen or [FALLBACK])[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = list(dict.fromkeys([*chosen, FALLBACK]))
    try:
        return onnxruntime.InferenceSession(content, options, providers=wanted)
    except Exception as error:  # onnxruntime has no public base class of its errors
        raise ModelMismatch(f"onnxruntime cannot open the model: {error}") from error


@cache
def _warn_once(missing: str, used: str) -> None:
    """Not for every model that comes: what a machine lacks, it goes on lacking."""
    log.warning("execution provider %s is not available here, using %s", missing, used)


def _check_input(session: "InferenceSession", manifest: ModelManifest) -> None:
    spec, inputs = manifest.input, session.get_inputs()
    if [found.name for found in inputs] != [spec.name]:
        raise ModelMismatch(f"inputs are {[found.name for found in inputs]}, the manifest says ['{spec.name}']")
    _check_value("input", inputs[0], list(spec.shape))


def _check_outputs(session: "InferenceSession", manifest: ModelManifest) -> None:
    found = {output.name: output for output in session.get_outputs()}
    places: list[int | None] = [None] if manifest.answer == "detection" else []
    shapes: dict[str, list[int | None]] = {
        "probabilities": [None, *places, len(manifest.labels)],
        "embedding": [None, None],
        "margin": [None],
        "ood": [None],
        "boxes": [None, None, 4],
    }
    for role, name in manifest.outputs.model_dump().items():
        if name is None:
            continue
        if name not in found:
            raise ModelMismatch(f"output {name!r} ({role}) is not in the model, which has {sorted(found)}")
        _check_value(f"output {name!r}", found[name], shapes[role])


def _check_value(what: str, found: Any, expected: list[int | None]) -> None:
    """Element type, rank and sizes; a size that either side leaves open fits, but the batch must be open."""
    if found.type != FLOAT:
        raise ModelMismatch(f"{what} is {found.type}, the manifest says {FLOAT}")
    shape = found.shape
    if not shape:  # a shape that the model does not state is judged by its answers
        return
    fits = len(shape) == len(expected) and not isinstance(shape[0], int)
    if not fits or any(isinstance(a, int) and b is not None and a != b for a, b in zip(shape, expected, strict=True)):
        raise ModelMismatch(f"{what} has shape {shape}, the manifest says {expected}")


def _check_answers(scored: Scored, manifest: ModelManifest, count: int) -> None:
    if scored.probabilities is not None:
        _check_probabilities(scored.probabilities, manifest, count)
        if scored.boxes is not None:
            _check_boxes(scored.boxes, scored.probabilities)
    for name, column in (("margin", scored.margin), ("ood", scored.ood)):
        if column is not None and column.shape != (count,):
            raise ModelMismatch(f"the {name} output is not one value a sample")
    if scored.embeddings.ndim != 2 or len(scored.embeddings) != count:
        raise ModelMismatch(f"{count} sample(s) gave embeddings of shape {scored.embeddings.shape}")
    if not np.isfinite(scored.embeddings).all():
        raise ModelMismatch("the model's embeddings are not finite")


def _check_probabilities(p: np.ndarray, manifest: ModelManifest, count: int) -> None:
    axes = 3 if manifest.answer == "detection" else 2
    if p.ndim != axes or len(p) != count or p.shape[-1] != len(manifest.labels):
        raise ModelMismatch(f"probabilities have shape {p.shape}, the manifest has {len(manifest.labels)} labels")
    inside = np.isfinite(p).all() and p.min(initial=0.0) >= -1e-4 and p.max(initial=0.0) <= 1 + 1e-3
    if manifest.answer != "classification":
        if not inside:
            raise ModelMismatch("the probabilities output is not within 0..1: are these raw scores?")
    elif not inside or np.abs(p.sum(axis=1) - 1.0).max(initial=0.0) > 1e-3:
        raise ModelMismatch("the probabilities output does not sum to 1: are these raw scores?")


def _check_boxes(boxes: np.ndarray, p: np.ndarray) -> None:
    if boxes.shape != (*p.shape[:2], 4):
        raise ModelMismatch(f"boxes have shape {boxes.shape}, beside probabilities of shape {p.shape}")
    if not np.isfinite(boxes).all():
        raise ModelMismatch("the model's boxes are not finite")
    if np.abs(boxes).max(initial=0.0) > FARTHEST:
        raise ModelMismatch("the boxes output is no x, y, width and height in 0..1: are these pixels?")
