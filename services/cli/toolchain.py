"""The Dapr runtime: an installed one when its version fits, else one built from the pinned modules."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DAPR_VERSION = "1.18.0"
# The workflow, scheduler and resiliency behaviour that the services rely on was measured on 1.18; another
# minor version may differ, a later patch of the same one does not.
FITTING = (1, 18)
PARTS = ("daprd", "placement", "scheduler")


class NoRuntime(Exception):
    """No Dapr runtime that fits is installed."""


@dataclass(frozen=True)
class Runtime:
    """A folder with daprd, placement and scheduler of one version."""

    folder: Path
    version: str
    origin: str


def cache_root() -> Path:
    """Where built binaries and a downloaded Go are kept, outside of any checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "halfsure"


def cache_bin() -> Path:
    return cache_root() / "dapr" / DAPR_VERSION / "bin"


def fits(version: str) -> bool:
    """Whether a runtime of this version may be used: the same minor version, any patch."""
    parts = version.lstrip("v").split(".")
    return len(parts) >= 3 and all(part.isdigit() for part in parts[:2]) and _minor(parts) == FITTING


def _minor(parts: list[str]) -> tuple[int, int]:
    return int(parts[0]), int(parts[1])


def daprd_version(daprd: Path) -> str | None:
    """What `daprd --version` says; None when it does not run."""
    try:
        answer = subprocess.run([str(daprd), "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.strip().splitlines()
    return lines[-1].strip() if lines else None


def candidates(configured: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Folders that may hold a runtime, in the order they are tried, each with a word on where it is from."""
    if configured is not None:
        yield configured, "HALFSURE_DAPR_BIN"
        return
    yield Path.home() / ".dapr" / "bin", "dapr init"
    on_path = shutil.which("daprd")
    if on_path:
        yield Path(on_path).resolve().parent, "PATH"
    yield cache_bin(), "built by halfsure"


def survey(configured: Path | None = None) -> Iterator[tuple[Runtime | None, str]]:
    """Every candidate: the runtime when it can be used, and what was found there."""
    for folder, origin in candidates(configured):
        missing = [part for part in PARTS if not (folder / part).exists()]
        if "daprd" in missing:
            yield None, f"{folder} ({origin}): no daprd"
            continue
        version = daprd_version(folder / "daprd")
        if version is None:
            yield None, f"{folder} ({origin}): daprd does not run"
        elif not fits(version):
            yield None, f"{folder} ({origin}): version {version}, needed is 1.18.x"
        elif missing:
            yield None, f"{folder} ({origin}): version {version}, but no {', '.join(missing)}"
        else:
            yield Runtime(folder, version, origin), f"{folder} ({origin}): version {version}"


def find_runtime(configured: Path | None = None) -> Runtime:
    """The first runtime that fits; NoRuntime says what was looked at."""
    looked = []
    for runtime, finding in survey(configured):
        if runtime is not None:
            return runtime
        looked.append(finding)
    raise NoRuntime(
        "no Dapr runtime 1.18.x is installed. `halfsure setup` builds one (about six minutes, once)."
        " Looked at: " + "; ".join(looked)
    )


def find_sentry(runtime: Path) -> Path:
    """Dapr's certificate service, beside the runtime or built by us; NoRuntime says how to get it."""
    for folder in (runtime, cache_bin()):
        if (folder / "sentry").exists():
            return folder / "sentry"
    raise NoRuntime("no sentry, which mTLS needs: `halfsure setup --mtls` builds it")


def find_cli() -> Path | None:
    """The `dapr` command: ours, else the one on PATH."""
    built = cache_bin() / "dapr"
    on_path = shutil.which("dapr")
    return built if built.exists() else Path(on_path) if on_path else None
