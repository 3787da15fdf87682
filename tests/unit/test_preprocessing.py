"""Bytes -> tensor: what is read is bounded and the same everywhere; what cannot be read is refused in words."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import UnreadableSample, decode

GREY = InputSpec.image(8, 8, 1)
COLOUR = InputSpec.image(4, 6, 3)
ROW = InputSpec.tabular(
    [
        TabularColumn(name="age", mean=40.0, scale=10.0),
        TabularColumn(name="colour", kind="category", categories=("red", "blue")),
    ]
)


def encoded(image: Image.Image, format: str = "PNG", **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


PNG = encoded(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4))


def test_an_image_of_the_right_size_is_its_pixels_scaled() -> None:
    tensor = decode(PNG, "image/png", GREY)
    assert (tensor.shape, tensor.dtype) == ((1, 8, 8), np.float32)
    assert np.allclose(tensor[0].ravel(), np.arange(64) * 4 / 255)


def test_mean_std_and_layout_are_those_of_the_spec() -> None:
    picture = encoded(Image.new("RGB", (6, 4), (255, 0, 51)))
    plain = decode(picture, "image/png", COLOUR)
    assert np.allclose(plain[:, 0, 0], [1.0, 0.0, 0.2])
    spec = InputSpec.image(4, 6, 3, layout="NHWC", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert np.allclose(decode(picture, "image/png", spec)[0, 0], [1.0, -1.0, -0.6])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_every_mode_of_a_white_picture_is_white(mode: str) -> None:
    white = Image.new("L", (9, 9), 255)
    if mode == "I;16":
        picture = encoded(Image.fromarray(np.full((9, 9), 65535, np.uint16)))
        media_type = "image/png"
    else:
        picture, media_type = encoded(white.convert(mode), "TIFF"), "image/tiff"
    assert decode(picture, media_type, GREY) == pytest.approx(1.0, abs=0.01)


def test_what_is_transparent_is_black() -> None:
    assert decode(encoded(Image.new("RGBA", (8, 8), (255, 255, 255, 0))), "image/png", GREY).max() == 0.0


def test_a_photo_lying_on_its_side_is_turned() -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = decode(encoded(Image.fromarray(pixels), "JPEG", exif=exif, quality=95), "image/jpeg", GREY)
    assert turned[0, :3].max() < 0.1 < 0.9 < turned[0, 5:].min()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


def animated() -> bytes:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 128, 255)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "media_type", "says"),
    [
        (b"", "image/png", "empty"),
        (b"not an image", "image/png", "wrong magic"),
        (PNG, "image/jpeg", "wrong magic"),
        (PNG, "text/plain", "not an image type"),
        (PNG, "", "not an image type"),
        (PNG[: len(PNG) - 30], "image/png", "cannot be decoded"),
        (PNG[:20], "image/png", "image/png"),
        (bomb(60_000, 60_000), "image/png", "pixels"),
        (bomb(9_000, 9_000), "image/png", "more than 50000000 pixels"),
        (bomb(2_000_000_000, 2_000_000_000), "image/png", "image/png|pixels"),
        (bomb(100, 100), "image/png", "cannot be decoded"),
        (animated(), "image/gif", "several frames"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, media_type: str, says: str) -> None:
    with pytest.raises(UnreadableSample, match=says):
        decode(content, media_type, GREY)


NOISE = np.random.default_rng(5).integers(256, size=(20, 20), dtype=np.uint8)


@settings(max_examples=60)
@given(st.data())
def test_damaged_bytes_are_a_tensor_or_a_refusal(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
    content = bytearray(encoded(Image.fromarray(NOISE), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        tensor = decode(bytes(content[:cut]), f"image/{kind.lower()}", GREY)
    except UnreadableSample:
        return
    assert tensor.shape == (1, 8, 8)
    assert np.isfinite(tensor).all()


def test_a_row_is_standardised_and_one_hot() -> None:
    assert decode(b'{"age": 50, "colour": "blue", "id": 7}', "application/json", ROW).tolist() == [1, 0, 1]
    assert decode(b'{"age": "35.0", "colour": "?"}', "application/json; charset=utf-8", ROW).tolist() == [
        -0.5,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"colour": "red"}', "'age' is missing"),
        (b'{"age": null, "colour": "red"}', "'age' is missing"),
        (b'{"age": NaN, "colour": "red"}', "not JSON"),
        (b'{"age": "nan", "colour": "red"}', "finite"),
        (b'{"age": "inf", "colour": "red"}', "finite"),
        (b'{"age": 1e308, "colour": "red"}', "finite"),
        (b'{"age": "old", "colour": "red"}', "not a number"),
        (b'{"age": [1], "colour": "red"}', "holds a list"),
        (b'{"age": 1, "colour": {}}', "holds a dict"),
        (b"[1, 2]", "object"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"age": "' + b"9" * (1 << 20) + b'"}', "bytes"),
        (b'{"age": ' + b"9" * 5000 + b', "colour": "red"}', "JSON|number"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(UnreadableSample, match=says):
        decode(content, "application/json", ROW)


def test_a_row_is_json_and_nothing_else() -> None:
    with pytest.raises(UnreadableSample, match="application/json"):
        decode(PNG, "image/png", ROW)


MANIFEST = {
    "task": "image-classification",
    "labels": ["a", "b"],
    "input": GREY.model_dump(mode="json"),
    "outputs": {"probabilities": "p", "embedding": "e"},
    "opset": 17,
    "sha256": "0" * 64,
}


def test_a_manifest_survives_json() -> None:
    manifest = ModelManifest.model_validate(MANIFEST)
    assert ModelManifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.input.sample_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "tabular-classification"}, "does not take"),
        ({"labels": ["a", "a"]}, "twice"),
        ({"labels": ["a"]}, "at least 2 label"),
        ({"outputs": {"embedding": "e"}}, "no output gives"),
        ({"outputs": {}}, "or an embedding"),
        ({"input": {**GREY.model_dump(), "shape": [None, 1, 9, 8]}}, "does not fit"),
        ({"input": {**GREY.model_dump(), "std": [0.0]}}, "greater than 0"),
        ({"sha256": "xyz"}, "pattern"),
        ({"format_version": 2}, "format_version"),
        ({"labelz": []}, "labelz"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ModelManifest.model_validate({**MANIFEST, **change})


def test_a_text_is_its_words_whatever_the_case_and_the_spaces() -> None:
    spec = InputSpec.text(256)
    one = decode(b"The  cat sat.", "text/plain; charset=utf-8", spec)
    assert (one.shape, one.dtype) == ((256,), np.float32)
    assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(one, decode(b"the cat\nSAT", "text/plain", spec))
    assert not np.array_equal(one, decode(b"sat the cat", "text/plain", spec))
    assert not decode(b"...", "text/plain", spec).any()


@pytest.mark.parametrize(
    ("content", "media_type", "why"),
    [
        (b"\xff\xfe", "text/plain", "not UTF-8"),
        (b"x" * ((1 << 20) + 1), "text/plain", "more than"),
        (b"x", "text/html", "text/plain"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, media_type: str, why: str) -> None:
    with pytest.raises(UnreadableSample, match=why):
        decode(content, media_type, InputSpec.text(64))


def test_a_window_is_its_points_in_order() -> None:
    spec = InputSpec.series(3, [TabularColumn(name="t", mean=1.0, scale=2.0), TabularColumn(name="p")])
    window = decode(b'[{"t":1,"p":2},{"t":3,"p":4},{"t":5,"p":6}]', "application/json", spec)
    np.testing.assert_array_equal(window, np.array([[0, 2], [1, 4], [2, 6]], np.float32))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'[{"t":1}]', "array of 2 points, not 1 points"),
        (b'{"t":1}', "array of 2 points, not dict"),
        (b'[{"t":1},{"t":"x"}]', "not a number"),
        (b"[1,2]", "a row is a JSON object"),
        (b"[", "not JSON"),
    ],
)
def test_what_is_no_window_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableSample, match=why):
        decode(content, "application/json", InputSpec.series(2, [TabularColumn(name="t")]))
