"""Time and memory of one selection, beside the libraries: the k least certain of a million, and a diverse hundred."""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.selection.peers import LIBRARIES, PEERS, Turn
from services.select_uncertain.strategies import DEFAULT_STRATEGY, STRATEGIES, Pool
from services.select_uncertain.strategies.largest import least_certain

TOP_K, DIVERSE = "top-k margin", "diverse batch"
K, CLASSES, WIDTH = 100, 10, 64
DIVERSE_PEERS = ("skactiveml/badge", "skactiveml/coreset", "skactiveml/falcun")


@dataclass(frozen=True)
class _Known:
    """A model whose probabilities of the whole pool are there already."""

    given: np.ndarray
    labelled: np.ndarray
    count: int = CLASSES

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        if len(x) > len(self.given):
            return np.concatenate([self.given, self.labelled])
        return self.given if len(x) == len(self.given) else self.labelled[: len(x)]


def measure(quick: bool) -> list[dict[str, Any]]:
    """[{what, n, k, library, strategy, seconds_min, ratio_to_memcpy, peak_mb}], by CPU time on one thread."""
    with threadpool_limits(1):
        return [*_top_k(50_000 if quick else 1_000_000, quick), *_diverse(5_000 if quick else 100_000, quick)]


def _top_k(size: int, quick: bool) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([0.3] * CLASSES, size=size).astype(np.float32)
    p /= p.sum(axis=1, keepdims=True)
    major, copy = np.asfortranarray(p), np.empty_like(p)
    memcpy = _seconds(lambda: np.copyto(copy, p), 7)
    thin = np.zeros((size + K, 1), np.float32)
    turn = Turn(_Known(p, p[:K]), thin, np.arange(size + K) % CLASSES, np.arange(size, size + K), np.arange(size), K, 1)  # type: ignore[arg-type]
    ours: dict[str, Callable[[], Any]] = {
        "least_certain, rows": lambda: least_certain(p, K),
        "least_certain, class-major": lambda: least_certain(major, K),
    }
    theirs = {"modal/margin": 3, "skactiveml/margin": 1, "small-text/breaking_ties": 1}
    rows = [_row(TOP_K, size, "memory", "memcpy", memcpy, memcpy, 0.0)]
    rows += [_measured(TOP_K, size, "halfsure", name, work, memcpy, 7) for name, work in ours.items()]
    for name, times in theirs.items():
        peer = {**PEERS, **_MARGINS}[name]
        rows.append(_measured(TOP_K, size, _library(name), name, partial(peer, turn), memcpy, 1 if quick else times))
    return rows


def _diverse(size: int, quick: bool) -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(200, WIDTH))
    x = (centres[rng.integers(0, 200, size + K)] + 0.3 * rng.normal(size=(size + K, WIDTH))).astype(np.float32)
    logits = x @ rng.normal(size=(WIDTH, CLASSES)).astype(np.float32)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    copy = np.empty_like(p)
    memcpy = _seconds(lambda: np.copyto(copy, p[: len(copy)]), 7)
    pool, labelled = Pool(x[:size], p[:size]), x[size:]
    y = p.argmax(axis=1)
    turn = Turn(_Known(p[:size], p[size:]), x, y, np.arange(size, size + K), np.arange(size), K, 1)  # type: ignore[arg-type]
    rows = []
    for name in (DEFAULT_STRATEGY, "k_means", "cluster_margin", "badge", "falcun", "k_center"):
        work = partial(lambda one: STRATEGIES[one](pool, labelled, K, np.random.default_rng(0)), name)
        rows.append(_measured(DIVERSE, size, "halfsure", name, work, memcpy, 5))
    for name in DIVERSE_PEERS[: 2 if quick else None]:
        rows.append(_measured(DIVERSE, size, _library(name), name, partial(PEERS[name], turn), memcpy, 1))
    return rows


def _margin_of(library: str, turn: Turn) -> np.ndarray:
    from bench.selection import peers

    if library == "skactiveml":
        return peers._skactiveml("UncertaintySampling", turn)
    return peers._small_text("BreakingTies", turn)


_MARGINS: dict[str, Callable[[Turn], Any]] = {
    "skactiveml/margin": partial(_margin_of, "skactiveml"),
    "small-text/breaking_ties": partial(_margin_of, "small-text"),
}


def _measured(
    what: str, size: int, library: str, name: str, work: Callable[[], Any], memcpy: float, times: int
) -> dict[str, Any]:
    """Time and peak memory in separate runs; in one where a run takes long: tracing costs numpy next to nothing."""
    seconds = _seconds(work, times) if times > 1 else 0.0
    tracemalloc.start()
    last = _seconds(work, 1)
    seconds = seconds or last
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return _row(what, size, library, name, seconds, memcpy, peak)


def _row(what: str, size: int, library: str, name: str, seconds: float, memcpy: float, peak: float) -> dict[str, Any]:
    return {
        "what": what,
        "n": size,
        "k": K,
        "library": library,
        "strategy": name,
        "seconds_min": round(seconds, 5),
        "ratio_to_memcpy": round(seconds / memcpy, 2),
        "peak_mb": round(peak, 2),
    }


def _seconds(work: Callable[[], Any], times: int) -> float:
    """The least CPU time of a call: a busy machine makes it longer, never shorter."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def _library(name: str) -> str:
    return LIBRARIES[name.partition("/")[0]]
