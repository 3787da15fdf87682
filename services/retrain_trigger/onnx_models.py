"""ONNX models as the trainer runs them: on one thread, so that sums do not depend on the machine, and in batches."""

import hashlib
from collections.abc import Sequence

import numpy as np

from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import UnreadableSample, decode
from services.retrain_trigger.jobs import ModelRef, SampleRef

BATCH = 64


class WrongArtefact(ValueError):
    """A model file is not the one that its manifest describes."""


class Model:
    """An ONNX model with its manifest. Raises WrongArtefact."""

    def __init__(self, content: bytes, manifest: ModelManifest) -> None:
        import onnxruntime

        found = hashlib.sha256(content).hexdigest()
        if found != manifest.sha256:
            raise WrongArtefact(f"a model has sha256 {found}, its manifest says {manifest.sha256}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.content, self.manifest = content, manifest
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    @classmethod
    def at(cls, ref: ModelRef) -> "Model":
        """The model of a job."""
        return cls(ref.path.read_bytes(), ref.manifest)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """role -> output for (N, ...) inputs, N >= 1."""
        roles = {role: name for role, name in self.manifest.outputs.model_dump().items() if name}
        parts = [
            self._session.run(list(roles.values()), {self.manifest.input.name: batch[start : start + BATCH]})
            for start in range(0, len(batch), BATCH)
        ]
        return {role: np.concatenate(columns) for role, columns in zip(roles, zip(*parts, strict=True), strict=True)}

    def probabilities(self, batch: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """(N, ..., C) in the order of `labels`; 0 of a label that the model does not know."""
        said = self.run(batch)["probabilities"]
        places = {label: place for place, label in enumerate(self.manifest.labels)}
        known = [at for at, label in enumerate(labels) if label in places]
        found = np.zeros((*said.shape[:-1], len(labels)), said.dtype)
        found[..., known] = said[..., [places[labels[at]] for at in known]]
        return found


def tensors(refs: Sequence[SampleRef], manifest: ModelManifest) -> np.ndarray:
    """(N, ...) float32. Raises UnreadableSample naming the sample."""
    batch = np.empty((len(refs), *manifest.input.sample_shape), np.float32)
    for index, ref in enumerate(refs):
        try:
            batch[index] = decode(ref.path.read_bytes(), ref.media_type, manifest.input)
        except (UnreadableSample, FileNotFoundError) as error:
            raise UnreadableSample(f"sample {ref.sample_id}: {error}") from error
    return batch
