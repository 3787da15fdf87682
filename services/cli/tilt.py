"""Tilt: the one on PATH, or the pinned one, built once into the cache from its Go modules (tilt/tool).

    python -m services.cli.tilt up        (or ci, down, ...: all of Tilt's own)

Its modules do not hold its page, without which it does not start: built here it gets a small one, tilt/tool/index.html.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from services.cli.gotoolchain import NoGo, go_from_wheel, go_on_path
from services.cli.settings import default_root
from services.cli.toolchain import cache_root

VERSION = "0.33.21"
MODULE = "github.com/tilt-dev/tilt"
PACKAGE = f"{MODULE}/cmd/tilt"
TOOL = Path("tilt/tool")
GO = (1, 26)


class NoTilt(Exception):
    """There is no Tilt, and none could be built; the message says what to do."""


def find_tilt(*, build: bool = True) -> Path | None:
    """Tilt's binary; None when there is none and none shall be built (some minutes, with Go and a C compiler)."""
    if found := shutil.which("tilt"):
        return Path(found)
    binary = cache_root() / "tilt" / VERSION / "tilt"
    if not binary.exists():
        if not build:
            return None
        binary.parent.mkdir(parents=True, exist_ok=True)
        with (binary.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not binary.exists():  # else another process has built it meanwhile
                print(f"Building Tilt {VERSION}, a few minutes ...", file=sys.stderr, flush=True)
                _build(binary)
    return binary


def _build(binary: Path) -> None:
    try:
        go = go_on_path(GO) or go_from_wheel(GO, cache_root())
    except NoGo as error:
        raise NoTilt(f"install Tilt (docs.tilt.dev/install), or a Go to build it with: {error}") from error
    draft = binary.with_name("draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(default_root() / TOOL, draft)
    environment = {**os.environ, **go.environment, "CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly"}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(go.binary), *words]
        return subprocess.run(command, env=environment, cwd=draft, capture_output=True, text=True, check=False)

    done = run("mod", "download", MODULE)  # checked against tilt/tool/go.sum
    if done.returncode == 0:
        module = Path(run("list", "-m", "-f", "{{.Dir}}", MODULE).stdout.strip())
        shutil.copytree(module, draft / "source", copy_function=shutil.copyfile)
        subprocess.run(["chmod", "-R", "u+w", str(draft)], check=True)
        (draft / "index.html").replace(draft / "source/pkg/assets/build/index.html")
        run("mod", "edit", "-replace", f"{MODULE}=./source")
        done = run("build", "-trimpath", "-ldflags", f"-s -w -X main.version={VERSION}", "-o", "tilt", PACKAGE)
    if go.scratch is not None:
        shutil.rmtree(go.scratch, ignore_errors=True)
    if done.returncode:
        raise NoTilt(f"Tilt {VERSION} could not be built; docs.tilt.dev/install. {done.stderr[-500:].strip()}")
    (draft / "tilt").replace(binary)
    shutil.rmtree(draft, ignore_errors=True)


def main() -> None:
    try:
        binary = find_tilt()
    except NoTilt as error:
        sys.exit(str(error))
    os.execv(str(binary), ["tilt", *sys.argv[1:]])


if __name__ == "__main__":
    main()
