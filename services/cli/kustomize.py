"""kustomize: the one on PATH, kubectl's own, or the pinned one, built once into the cache."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from services.cli.gotoolchain import go_from_wheel, go_on_path
from services.cli.toolchain import cache_root

VERSION = "5.8.1"
MODULE = f"sigs.k8s.io/kustomize/kustomize/v5@v{VERSION}"
GO = (1, 24)


class NotRendered(Exception):
    """An overlay cannot be rendered; the message is kustomize's."""


def kustomize(*, build: bool = True) -> list[str] | None:
    """The command that renders a folder; None when there is none and none shall be built (a minute, with Go)."""
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    binary = cache_root() / "kustomize" / VERSION / "kustomize"
    if not binary.exists():
        if not build:
            return None
        binary.parent.mkdir(parents=True, exist_ok=True)
        with (binary.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not binary.exists():  # else another process has built it meanwhile
                _build(binary)
    return [str(binary), "build"]


def _build(binary: Path) -> None:
    go = go_on_path(GO) or go_from_wheel(GO, cache_root())
    draft = binary.with_name("draft")  # moved to its place once it is whole
    draft.mkdir(exist_ok=True)
    environment = {**os.environ, **go.environment, "GOBIN": str(draft), "CGO_ENABLED": "0"}
    command = [str(go.binary), "install", "-trimpath", "-ldflags", "-s -w", MODULE]
    done = subprocess.run(command, env=environment, cwd=draft, capture_output=True, text=True, check=False)
    if go.scratch is not None:
        shutil.rmtree(go.scratch, ignore_errors=True)
    if done.returncode:
        raise NotRendered(f"kustomize {VERSION} could not be built; install kustomize or kubectl. {done.stderr[-500:]}")
    (draft / "kustomize").replace(binary)
    shutil.rmtree(draft, ignore_errors=True)


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects of an overlay, in kustomize's order. Raises NotRendered."""
    return [one for one in yaml.safe_load_all(render_text(folder)) if one]


def render_text(folder: Path) -> str:
    """As YAML, for `kubectl apply -f -`. Raises NotRendered."""
    command = kustomize() or []
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRendered(f"{folder}: {done.stderr.strip()[-1000:]}")
    return done.stdout
