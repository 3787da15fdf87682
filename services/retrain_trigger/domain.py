"""How foreign a sample is to what a model was trained on: how far its embedding is from the nearest of those. Pure.

0..1, from d / (d + s), d being the Euclidean distance to the nearest of up to `MOST` training embeddings, s that
which 95 of 100 training samples keep to: 0.5 is as far as the farthest twentieth of what is known, and nothing is
too far to be told from what is farther. The nearest neighbour (Sun et al., ICML 2022) was as good as or better than
Mahalanobis distances and probabilistic PCA on the digits, from 20 labels on.
"""

from dataclasses import dataclass

import numpy as np

MOST = 256
VALUES = 1 << 18
"""Most numbers that are kept (1 MiB): wide embeddings are known by fewer samples."""
WITHIN = 0.95
FEWEST = 2
FAINT, TOLERANCE = 0.05, 0.01


@dataclass(frozen=True)
class Known:
    """Embeddings (M, D) of samples that were trained on less their centre (D,), and the distance that most keep to."""

    embeddings: np.ndarray
    centre: np.ndarray
    scale: float


def known(embeddings: np.ndarray) -> Known | None:
    """Of (N, D): a part drawn by chance, always the same; None where nothing can be said of distances."""
    count, width = embeddings.shape
    drawn = np.random.default_rng(count).permutation(count)
    most = max(FEWEST, min(MOST, VALUES // width))
    kept, others = embeddings[drawn[:most]], embeddings[drawn[most:]]
    if len(kept) < FEWEST:
        return None
    among = _squares(kept, kept)
    np.fill_diagonal(among, np.inf)
    apart = np.concatenate([among.min(axis=1), _squares(others, kept).min(axis=1)])
    scale = float(np.sqrt(np.quantile(apart, WITHIN)))
    centre = kept.mean(axis=0).astype(np.float32)
    return Known((kept - centre).astype(np.float32), centre, scale) if scale > 0 else None


def foreignness(embeddings: np.ndarray, of: Known) -> np.ndarray:
    """(N, D) -> (N,), what the exported graph has to say."""
    apart = np.sqrt(_squares(embeddings - of.centre, of.embeddings).min(axis=1))
    return apart / (apart + of.scale)


def faithful(said: np.ndarray, embeddings: np.ndarray, of: Known) -> bool:
    """Whether a graph in float32 says the same; of what is all but known it sees only that."""
    expected = foreignness(embeddings, of)
    return bool(np.abs(np.maximum(said, FAINT) - np.maximum(expected, FAINT)).max(initial=0.0) < TOLERANCE)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) squared distances of (N, D) and (M, D)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.maximum((a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1), 0.0)
