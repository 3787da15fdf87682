"""Whether onnxruntime runs a model as its manifest says."""

from services.contracts.manifest import ModelManifest


def unloadable(content: bytes, manifest: ModelManifest) -> str | None:
    """Why onnxruntime cannot run this as the manifest says, None if it can."""
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
    if manifest.outputs.probabilities and shapes[manifest.outputs.probabilities] != (2, len(manifest.labels)):
        return f"its probabilities have the shape {shapes[manifest.outputs.probabilities]} for two samples"
    return None
