"""What is learnt in the benchmark: bundled sets of scikit-learn, generated ones, and Debian's manual pages by section.

`SET_ASIDE` were named on 2026-11-25, before any strategy was tuned, and were not looked at until the strategies stood.
"""

import gzip
import hashlib
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

SET_ASIDE = ("manpages", "drift")
PACKAGES = ("apt", "coreutils", "dpkg", "git-man", "iproute2", "manpages", "manpages-dev", "mount", "openssl", "passwd",
            "systemd", "util-linux")  # fmt: skip
"""Debian packages whose English manual pages are the text; `apt-get install` brings them."""
MOST_PAGES = 400
"""Pages of one section, the first by a hash of their names."""
TEST_SHARE = 0.3


class NotHere(Exception):
    """A data set that this machine cannot make; the message says what to install."""


@dataclass(frozen=True)
class Data:
    """Embeddings (N, D) float32, class indices (N,), groups (N,) that are never split, and how it is played."""

    embeddings: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    first: int = 20
    batch: int = 20
    budget: int = 320
    metric: Literal["accuracy", "balanced accuracy"] = "accuracy"
    test: np.ndarray | None = None  # samples that may be tested on, (N,) bool; default: all

    def split(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the pool, and of the test set: one sample of each of 30 % of the groups."""
        names = rng.permutation(np.unique(self.groups))
        held = np.isin(self.groups, names[: math.ceil(TEST_SHARE * len(names))])
        first_of_group = np.zeros(len(self.groups), bool)
        first_of_group[np.unique(self.groups, return_index=True)[1]] = True
        may = first_of_group if self.test is None else first_of_group & self.test
        return np.flatnonzero(~held), np.flatnonzero(held & may)


def _plain(embeddings: np.ndarray, classes: np.ndarray, **how: object) -> Data:
    size = len(classes)
    return Data(np.asarray(embeddings, np.float32), np.asarray(classes), np.arange(size), **how)  # type: ignore[arg-type]


def _bundled(name: str, **how: int) -> Data:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    x, y = np.asarray(found.data), np.asarray(found.target)
    if name == "digits":
        return _plain(x / 16.0, y, **how)
    if name == "diabetes":
        y = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
    return _plain((x - x.mean(axis=0)) / x.std(axis=0), y, **how)


def _near_duplicates() -> Data:
    """Digits, of which few are there many times: 1 + Zipf copies with a little noise; copies stay together."""
    base, rng = _bundled("digits"), np.random.default_rng(20251)
    copies = np.minimum(rng.zipf(2.0, len(base.classes)), 30)
    source = np.repeat(np.arange(len(copies)), copies)
    noise = rng.normal(0, 0.02, (len(source), base.embeddings.shape[1]))
    return Data((base.embeddings[source] + noise).astype(np.float32), base.classes[source], source)


def _imbalance() -> Data:
    """Two classes, 1:50, in 20 dimensions."""
    from sklearn.datasets import make_classification

    x, y = make_classification(6000, 20, n_informative=8, n_redundant=4, n_classes=2, n_clusters_per_class=1,
                               weights=[50 / 51], flip_y=0, class_sep=1.0, random_state=20252)  # fmt: skip
    return _plain(x / x.std(axis=0), y, metric="balanced accuracy")


def _imbalance_many() -> Data:
    """Eight classes whose sizes fall geometrically to 1:50."""
    from sklearn.datasets import make_classification

    shares = 50.0 ** -np.linspace(0, 1, 8)
    x, y = make_classification(6000, 24, n_informative=12, n_redundant=4, n_classes=8, n_clusters_per_class=1,
                               weights=list(shares / shares.sum()), flip_y=0, class_sep=1.5,
                               random_state=20253)  # fmt: skip
    return _plain(x / x.std(axis=0), y, metric="balanced accuracy")


def _tabular() -> Data:
    """Six classes, 5 % of the labels wrong."""
    from sklearn.datasets import make_classification

    x, y = make_classification(3000, 20, n_informative=10, n_redundant=4, n_classes=6, n_clusters_per_class=1,
                               flip_y=0.05, class_sep=1.6, random_state=20254)  # fmt: skip
    return _plain(x / x.std(axis=0), y)


def _drift() -> Data:
    """Five classes of two clusters whose centres wander while the pool is collected; the test set is its last fifth."""
    rng = np.random.default_rng(20255)
    size, time = 3000, np.sort(rng.random(3000))
    y, cluster = rng.integers(0, 5, size), rng.integers(0, 2, size)
    start, way = rng.normal(0, 2.0, (5, 2, 12)), rng.normal(0, 1.2, (5, 2, 12))
    x = start[y, cluster] + time[:, None] * way[y, cluster] + rng.normal(size=(size, 12))
    return _plain(x / x.std(axis=0), y, test=time > 0.8)


@cache
def pages() -> tuple[list[str], list[str], str]:
    """Texts and sections of the manual pages, and the hash of them all. Raises NotHere."""
    found: dict[str, tuple[str, str]] = {}
    for package in PACKAGES:
        listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
        if listed.returncode:
            raise NotHere(f"the text needs Debian's manual pages: apt-get install {' '.join(PACKAGES)}")
        for line in listed.stdout.splitlines():
            match = re.fullmatch(r"/usr/share/man/man([12578])/(.+)\.[0-9a-z]+\.gz", line)
            path = Path(line)
            if match and path.is_file() and not path.is_symlink():
                text = _prose(gzip.decompress(path.read_bytes()).decode(errors="replace"))
                if len(text) > 200:
                    found[line] = (text, match[1])
    kept: list[str] = []
    for section in "12578":
        names = sorted((n for n in found if found[n][1] == section), key=lambda n: hashlib.sha256(n.encode()).digest())
        kept += names[:MOST_PAGES]
    digest = hashlib.sha256()
    for name in sorted(kept):
        digest.update(f"{name}\n{found[name][0]}\n".encode())
    return [found[n][0] for n in kept], [found[n][1] for n in kept], digest.hexdigest()


def _prose(page: str) -> str:
    """Words of a page without its title line, macros, names with a section behind them, and what names a section."""
    lines = [line for line in page.splitlines() if not line.startswith(('.\\"', ".TH", ".Dt", "'\\\""))]
    text = re.sub(r"^[.'][A-Za-z]+|\\f.|\\[-&e(\[*]\S?|\(\d[a-z]*\)", " ", "\n".join(lines), flags=re.MULTILINE)
    return " ".join(re.findall(r"[a-z]{2,}", text.lower())[:1500])


def _manpages() -> Data:
    """tf-idf of the words, 100 singular directions of it, unit length."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, sections, _ = pages()
    words = TfidfVectorizer(max_features=6000, sublinear_tf=True, min_df=3, stop_words="english").fit_transform(texts)
    x = TruncatedSVD(100, random_state=0).fit_transform(words)
    x /= np.linalg.norm(x, axis=1, keepdims=True) + 1e-12
    return _plain(x * 4.0, np.unique(sections, return_inverse=True)[1])


DATASETS: dict[str, Callable[[], Data]] = {
    "digits": lambda: _bundled("digits"),
    "breast_cancer": lambda: _bundled("breast_cancer", first=10, batch=10, budget=150),
    "wine": lambda: _bundled("wine", first=6, batch=4, budget=60),
    "iris": lambda: _bundled("iris", first=6, batch=4, budget=60),
    "diabetes": lambda: _bundled("diabetes", first=10, batch=10, budget=200),
    "near_duplicates": _near_duplicates,
    "imbalance50": _imbalance,
    "imbalance50_many": _imbalance_many,
    "tabular": _tabular,
    "drift": _drift,
    "manpages": _manpages,
}


@cache
def load(name: str) -> Data:
    """A data set by name, the same in every process. Raises NotHere."""
    return DATASETS[name]()
