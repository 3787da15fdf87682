"""The bundled extractors: fixed bytes, finite embeddings, and features that separate real digits."""

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from services.contracts.inputs import TabularColumn
from services.infer.model import OnnxModel
from services.retrain_trigger.extractors import image_extractor, tabular_extractor
from services.retrain_trigger.heads import Examples, HeadParams, NotTrainable, fit


@pytest.mark.parametrize("size", [(8, 8, 1), (9, 13, 3), (16, 16, 3), (48, 50, 1), (96, 64, 3)])
def test_image_extractors_are_the_same_bytes_and_give_finite_embeddings(size: tuple[int, int, int]) -> None:
    content, manifest = image_extractor(*size)
    assert image_extractor(*size) == (content, manifest)
    model = OnnxModel.load(content, manifest)
    rng = np.random.default_rng(1)
    batch = rng.random((3, *manifest.input.sample_shape), dtype=np.float32)
    scored = model.predict(batch)
    assert scored.probabilities is None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert scored.embeddings.shape == (3, session.get_outputs()[0].shape[1])
    assert np.isfinite(scored.embeddings).all()
    assert not model.predict(np.zeros_like(batch)).embeddings.any()


def test_a_picture_below_8_pixels_has_no_extractor() -> None:
    with pytest.raises(ValueError, match="8x8"):
        image_extractor(7, 32, 1)


def test_a_row_is_its_own_embedding() -> None:
    columns = [TabularColumn(name="x"), TabularColumn(name="c", kind="category", categories=("a", "b"))]
    model = OnnxModel.load(*tabular_extractor(columns))
    assert model.predict(np.array([[0.5, 0, 1]], np.float32)).embeddings.tolist() == [[0.5, 0, 1]]


def test_forty_digits_and_an_unlabelled_pool_make_a_good_head() -> None:
    data = load_digits()
    model = OnnxModel.load(*image_extractor(8, 8, 1))
    embeddings = model.predict((data.images[:, None] / 16).astype(np.float32)).embeddings
    order = np.random.default_rng(4).permutation(len(embeddings))
    test, given, pool = order[:360], order[360:400], order[400:]
    examples = Examples(embeddings[given], data.target[given], np.ones(40), embeddings[pool])
    alone = fit(examples, HeadParams(head="logistic")).model.score(embeddings[test], data.target[test])
    helped = fit(examples, HeadParams()).model.score(embeddings[test], data.target[test])
    full = Examples(embeddings[order[360:]], data.target[order[360:]], np.ones(len(order) - 360), embeddings[:0])
    assert fit(full, HeadParams()).model.score(embeddings[test], data.target[test]) > 0.97
    assert helped > alone + 0.02


def test_no_labels_are_not_trainable() -> None:
    with pytest.raises(NotTrainable, match="two labels"):
        fit(Examples(np.zeros((2, 3)), np.array([1, 1]), np.ones(2), np.zeros((0, 3))), HeadParams())
