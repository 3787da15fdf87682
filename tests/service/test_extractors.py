"""The bundled extractors: fixed bytes, finite embeddings, and features that separate real digits."""

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.preprocessing import decode
from services.contracts.tasks import Task
from services.infer.model import OnnxModel
from services.retrain_trigger.extractors import extractor, image_extractor, tabular_extractor
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


XY = [TabularColumn(name="x"), TabularColumn(name="y")]


@pytest.mark.filterwarnings("ignore:overflow encountered in dot")  # of vectors that are large, and finite
@pytest.mark.parametrize(
    ("task", "spec"),
    [
        ("image-detection", InputSpec.image(32, 32, 3)),
        ("tabular-multi-label", InputSpec.tabular(XY)),
        ("text-classification", InputSpec.text()),
        ("text-multi-label", InputSpec.text(64)),
        ("text-multi-label", InputSpec.text(5000)),
        *(("series-classification", InputSpec.series(length, XY)) for length in (1, 2, 3, 13, 64, 8640)),
    ],
)
def test_every_task_has_an_extractor_of_fixed_bytes(task: Task, spec: InputSpec) -> None:
    content, manifest = extractor(task, spec)
    assert extractor(task, spec) == (content, manifest)
    assert manifest.task == task
    model = OnnxModel.load(content, manifest)
    batch = np.random.default_rng(1).normal(size=(3, *spec.sample_shape)).astype(np.float32)
    extremes = [np.full_like(batch, 1e38), np.full_like(batch, -1e38)] if spec.kind == "series" else []
    for values in (batch, *extremes):
        assert np.isfinite(model.predict(values).embeddings).all()
    assert not model.predict(np.zeros_like(batch)).embeddings.any()


def test_no_extractor_for_another_kind_of_input() -> None:
    with pytest.raises(ValueError, match="does not take a text"):
        extractor("image-detection", InputSpec.text())
    with pytest.raises(ValueError, match="NCHW"):
        extractor("image-detection", InputSpec.image(32, 32, 3, layout="NHWC"))


def test_a_text_is_its_counts_and_many_are_folded_as_if_hashed_into_fewer() -> None:
    texts = ["the pump leaks oil", "the pump leaks oil again", "fuse two of the panel", "fuse two is blown", "fine"]
    few, many, odd = (
        OnnxModel.load(*extractor("text-classification", spec))
        .predict(np.stack([decode(text.encode(), "text/plain", spec) for text in texts]))
        .embeddings
        for spec in (InputSpec.text(4096), InputSpec.text(1 << 16), InputSpec.text(5000))
    )
    assert few.shape == many.shape == odd.shape == (5, 4096)
    np.testing.assert_allclose(few, many, atol=1e-6)
    np.testing.assert_allclose(odd @ odd.T, few @ few.T, atol=0.15)


def test_a_window_is_seen_by_its_statistics_its_shape_and_its_waves() -> None:
    """Column x is a wave of five periods and amplitude 2 around 1; y rises from -1 to 1."""
    length, at = 64, np.arange(64)
    model = OnnxModel.load(*extractor("series-classification", InputSpec.series(length, XY)))
    window = np.stack([1 + 2 * np.sin(2 * np.pi * 5 * at / length), np.linspace(-1, 1, length)], axis=1)
    x, y = model.predict(window[None].astype(np.float32)).embeddings.reshape(2, -1)
    mean, slope, last = x[0], x[1], x[2]
    deviation, least, most, step = x[11:15]
    assert (mean, deviation, least, most) == pytest.approx((1, np.sqrt(2), -1, 3), abs=0.02)
    assert last == pytest.approx(window[-1, 0], abs=1e-5)
    assert step == pytest.approx(np.sqrt((np.diff(window[:, 0]) ** 2).mean()), abs=1e-5)
    waves = x[15:]
    assert waves.max() == pytest.approx(2, abs=1e-4)
    assert np.sort(waves)[:-1].max() < 1e-3, "all of the wave is in one band"
    assert y[1] == pytest.approx(1, abs=1e-5)
    assert abs(slope) < 0.5
    np.testing.assert_allclose(y[3:11], window[:, 1].reshape(8, 8).mean(axis=1), atol=1e-5)


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
