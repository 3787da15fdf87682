"""Whether a model can run as its manifest says: onnxruntime tries; of a server, its endpoint is read."""

from collections.abc import Mapping

from services.contracts import endpoints
from services.contracts.manifest import ModelManifest


def unloadable(content: bytes, manifest: ModelManifest) -> str | None:
    """Why this cannot run as the manifest says, None if it can. Nobody's server is asked."""
    if manifest.backend == "http":
        try:
            endpoints.read(content, manifest)
        except ValueError as error:
            return f"the artefact is no endpoint of this manifest: {error}"
        return None
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        sample = np.zeros((2, *manifest.input.sample_shape), np.float32)
        outputs = session.run(list(manifest.outputs.names), {manifest.input.name: sample})
    except Exception as error:  # onnxruntime's own exceptions share no base class below this one
        return f"onnxruntime refuses it: {str(error)[:300]}"
    shapes = dict(zip(manifest.outputs.names, (np.asarray(output).shape for output in outputs), strict=True))
    return _misshapen(manifest, shapes)


def _misshapen(manifest: ModelManifest, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why the outputs for two samples are not as the manifest says: (2, C), or of a detector (2, M, C), (2, M, 4)."""
    outputs, classes = manifest.outputs, len(manifest.labels)
    if not outputs.probabilities:
        return None
    said = shapes[outputs.probabilities]
    if outputs.boxes and shapes[outputs.boxes] != (*said[:2], 4):
        return f"its boxes have the shape {shapes[outputs.boxes]} beside probabilities of {said}"
    middle = said[1:2] if outputs.boxes else ()
    if said != (2, *middle, classes):
        return f"its probabilities have the shape {said} for two samples"
    return None
