"""A sample's bytes -> the tensor a model takes: one path for training and serving, so they cannot drift."""

import io
import math
import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from PIL import Image, ImageOps

from services.contracts.inputs import InputSpec, TabularColumn

MAX_IMAGE_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
"""Pixels of the largest image that is decoded (about 200 MB while decoding)."""
MAX_ROW_BYTES = MAX_TEXT_BYTES = 1 << 20
MAX_WINDOW_BYTES = 16 << 20

_WORD = re.compile(r"\w+")

FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/tiff": "TIFF",
}
"""Media types that are read, each with the one decoder it may reach."""

_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    Image.DecompressionBombError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on hostile bytes."""


_LARGEST = float(np.finfo(np.float32).max)


class UnreadableSample(ValueError):
    """The content can never become this model's input; the message says why."""


def decode(content: bytes, media_type: str, spec: InputSpec) -> np.ndarray:
    """One sample's content as a float32 tensor of `spec.sample_shape`. Raises UnreadableSample."""
    kind = media_type.split(";")[0].strip().lower()
    if spec.media_type is not None:
        if kind != spec.media_type:
            raise UnreadableSample(f"a {spec.kind} sample is {spec.media_type}, not {kind or 'untyped'}")
        return {"tabular": _row, "series": _window, "text": _text}[spec.kind](content, spec)
    if kind not in FORMATS:
        raise UnreadableSample(f"media type {kind or '(none)'} is not an image type that is read")
    if not content:
        raise UnreadableSample("the content is empty")
    if len(content) > MAX_IMAGE_BYTES:
        raise UnreadableSample(f"the image has {len(content)} bytes, more than {MAX_IMAGE_BYTES}")
    return _normalised(_pixels(content, kind, spec), spec)


def _pixels(content: bytes, kind: str, spec: InputSpec) -> np.ndarray:
    """uint8 (H, W, channels) of a whole, single, bounded image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[FORMATS[kind]]) as image:
                _bounded(image)
                pixels = np.asarray(_picture(image, spec), dtype=np.uint8)
    except UnreadableSample:
        raise
    except Image.UnidentifiedImageError:
        raise UnreadableSample(f"the content is not {kind}: wrong magic bytes or a broken header") from None
    except _DECODER_ERRORS as error:
        raise UnreadableSample(f"the {kind} cannot be decoded: {error or type(error).__name__}") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _bounded(image: Image.Image) -> None:
    """Refuse by the header alone, before any pixel is decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableSample("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise UnreadableSample(f"the image is {width}x{height}, more than {MAX_PIXELS} pixels when decoded")
    if getattr(image, "is_animated", False):
        raise UnreadableSample("the image has several frames; a sample is one picture")


def _picture(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Upright, opaque, grey or RGB, resized to the spec's sides."""
    size = (spec.width or 1, spec.height or 1)
    image.draft(None, (2 * size[0], 2 * size[1]))
    ImageOps.exif_transpose(image, in_place=True)
    picture: Image.Image = image
    mode = "L" if spec.channels == 1 else "RGB"
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    if picture.mode != mode:
        picture = picture.convert(mode)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit greys scaled to 0..255; Pillow's own conversion would clip them."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnreadableSample("the image holds values that are not finite")
    top = 255.0 if values.max(initial=0) <= 255 and not picture.mode.startswith("I;16") else 65535.0
    return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8))


def _normalised(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    values = pixels.astype(np.float32) * np.float32(spec.scale)
    if spec.mean:
        values -= np.asarray(spec.mean, np.float32)
    if spec.std:
        values /= np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(values if spec.layout == "NHWC" else values.transpose(2, 0, 1))


def _row(content: bytes, spec: InputSpec) -> np.ndarray:
    return np.asarray(_cells(_json(content, "row", MAX_ROW_BYTES), spec), dtype=np.float32)


def _window(content: bytes, spec: InputSpec) -> np.ndarray:
    """A JSON array of `spec.length` rows, oldest first."""
    points = _json(content, "window", MAX_WINDOW_BYTES)
    if not isinstance(points, list) or len(points) != spec.length:
        found = f"{len(points)} points" if isinstance(points, list) else type(points).__name__
        raise UnreadableSample(f"a window is a JSON array of {spec.length} points, not {found}")
    return np.asarray([_cells(point, spec) for point in points], dtype=np.float32)


def _json(content: bytes, what: str, most: int) -> Any:
    if len(content) > most:
        raise UnreadableSample(f"the {what} has {len(content)} bytes, more than {most}")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnreadableSample(f"the {what} is not JSON: {error}") from None


def _cells(row: Any, spec: InputSpec) -> list[float]:
    if not isinstance(row, Mapping):
        raise UnreadableSample("a row is a JSON object of column -> value")
    values: list[float] = []
    for column in spec.columns:
        if row.get(column.name) is None:
            raise UnreadableSample(f"column {column.name!r} is missing")
        values += _cell(row[column.name], column)
    return values


def _text(content: bytes, spec: InputSpec) -> np.ndarray:
    """Hashed word n-grams (Weinberger et al., ICML 2009), log(1 + count), of length 1; a text without words is zeros.

    The hash is CRC-32 of the words in lower case joined by a space: one bit of it is the sign, so that words that share
    a place cancel out rather than add up.
    """
    if len(content) > MAX_TEXT_BYTES:
        raise UnreadableSample(f"the text has {len(content)} bytes, more than {MAX_TEXT_BYTES}")
    try:
        words = _WORD.findall(content.decode("utf-8").lower())
    except UnicodeDecodeError as error:
        raise UnreadableSample(f"the text is not UTF-8: {error.reason} at byte {error.start}") from None
    runs = [" ".join(words[at : at + n]) for n in range(1, spec.ngrams + 1) for at in range(len(words) - n + 1)]
    counts = Counter(zlib.crc32(run.encode()) for run in runs)
    size = spec.features or 1
    values = np.zeros(size, np.float32)
    for code, count in counts.items():
        values[(code >> 1) % size] += (1 if code & 1 else -1) * math.log1p(count)
    norm = float(np.linalg.norm(values))
    return values / np.float32(norm) if norm else values


def _cell(value: Any, column: TabularColumn) -> list[float]:
    """The column's values in the tensor; a category that is not listed is all zeros."""
    if isinstance(value, (dict, list)):
        kind = type(value).__name__
        raise UnreadableSample(f"column {column.name!r} holds a {kind}, not a number or a string")
    if column.kind == "category":
        text = str(value)
        return [float(text == category) for category in column.categories]
    try:
        scaled = (float(value) - column.mean) / column.scale
    except (ValueError, OverflowError):
        raise UnreadableSample(f"column {column.name!r}: {str(value)[:40]!r} is not a number") from None
    if not math.isfinite(scaled) or abs(scaled) > _LARGEST:
        raise UnreadableSample(f"column {column.name!r}: {str(value)[:40]!r} is not a finite number")
    return [scaled]
