"""Generated pictures of a few shapes on a textured ground, with the boxes around them: data for detectors."""

import io
from typing import Any

import numpy as np
from PIL import Image

from services.contracts.values import DIGITS

SIDE = 64
SHAPES = ("cross", "diamond", "disc", "square", "triangle")
MOST_SHAPES = 4
SMALLEST, LARGEST = 14, 32  # pixels


def scene(rng: np.random.Generator) -> tuple[bytes, dict[str, Any]]:
    """A grey PNG file of SIDE x SIDE pixels, and its boxes as an answer has them."""
    pixels = _ground(rng)
    boxes: list[dict[str, Any]] = []
    taken = np.zeros((SIDE, SIDE), bool)
    for _ in range(rng.integers(1, MOST_SHAPES + 1)):
        size = int(rng.integers(SMALLEST, LARGEST + 1))
        x, y = (int(at) for at in rng.integers(0, SIDE - size + 1, 2))
        place = slice(y, y + size), slice(x, x + size)
        label = str(rng.choice(SHAPES))
        if taken[place].any():
            continue
        taken[place] = True
        mask = _mask(label, size)
        shade = pixels[place].mean() + rng.choice([-1.0, 1.0]) * rng.uniform(25, 70)
        pixels[place] = np.where(mask, shade + rng.normal(0, 12, mask.shape), pixels[place])
        sides = {"x": x / SIDE, "y": y / SIDE, "width": size / SIDE, "height": size / SIDE}
        boxes.append({"label": label, **{name: round(side, DIGITS) for name, side in sides.items()}})
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue(), {"boxes": boxes}


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Waves in a few directions, and noise."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    ground = np.full((SIDE, SIDE), rng.uniform(90, 165))
    for _ in range(3):
        angle, waves, shift = rng.uniform(0, np.pi), rng.uniform(1, 8), rng.uniform(0, 2 * np.pi)
        ground += rng.uniform(5, 18) * np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + shift)
    return ground + rng.normal(0, 12, ground.shape)


def _mask(label: str, size: int) -> np.ndarray:
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    match label:
        case "cross":
            return np.minimum(np.abs(x), np.abs(y)) <= 1 / 6
        case "diamond":
            return np.abs(x) + np.abs(y) <= 0.5
        case "disc":
            return x**2 + y**2 <= 0.25
        case "triangle":
            return np.abs(x) <= (y + 0.5) / 2
        case _:
            return np.ones((size, size), bool)
