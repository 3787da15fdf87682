"""Boxes of pictures in pixels, where a format has them so; fractions of the upright picture everywhere else. Pure."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from services.contracts.boxes import SIDES
from services.contracts.problem import Problem
from services.contracts.values import DIGITS

ROTATED = 0x0112  # the EXIF tag that says how a picture is turned
LYING = range(5, 9)
"""Its values for a picture whose sides change places when it is upright."""
Size = tuple[float, float]


def size_of(raw: bytes) -> Size:
    """Width and height of the upright picture, by its header alone. Raises a 422 problem for what is none."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ROTATED) in LYING else (width, height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Problem(422, "no-picture", f"The picture cannot be measured: {error}.") from error


def pixels(box: dict[str, Any], size: Size) -> list[float]:
    """x, y, width and height of a box in pixels; what `fractions` is given, it gives back to the last digit."""
    return [round(box[side] * size[at % 2], DIGITS) for at, side in enumerate(SIDES)]


def fractions(label: str, sides: Sequence[Any], size: Size) -> dict[str, Any]:
    """The box; what reaches beyond the edge by less than a pixel is cut, as tools draw it. Raises a 422 problem."""
    try:
        x, y, width, height = map(float, sides)
    except (TypeError, ValueError) as error:
        raise Problem(422, "no-boxes", f"A box is x, y, width and height, not {sides!r:.100}.") from error
    if not (size[0] > 0 and size[1] > 0):
        raise Problem(422, "no-picture", "The picture has no width, or no height.")
    box = {"label": label}
    for name, start, length, whole in (("x", x, width, size[0]), ("y", y, height, size[1])):
        end = start + length
        start = 0.0 if -1 < start < 0 else start
        end = whole if whole < end < whole + 1 else end
        box |= {name: start / whole, "width" if name == "x" else "height": (end - start) / whole}
    return box
