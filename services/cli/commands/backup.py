"""`halfsure backup` and `restore`: a running stack as one file, and a stack made of it again."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli import backup as backups
from services.cli.home import Home
from services.cli.ports import plan_ports
from services.cli.redis import split_host
from services.cli.runfile import read_run_file
from services.cli.settings import StackSettings
from services.cli.terminal import HomeOption, app, load_settings, out

File = Annotated[Path, typer.Argument(help="The backup: one file, as private as the state folder itself.")]


@app.command()
def backup(file: File, home: HomeOption = None) -> None:
    """Write state, events, contents and tokens of the running stack to a file; the loop goes on meanwhile."""
    settings = load_settings(home)
    _needs_local(settings)
    address = settings.redis_host or f"127.0.0.1:{plan_ports(read_run_file(settings.run_file_path), settings)['redis']}"
    if not Home(settings.home_path).is_locked():
        raise backups.NoBackup(f"no stack runs in {settings.home_path}; `halfsure up` starts one")
    said = backups.write(Home(settings.home_path), split_host(address), file)
    size = os.stat(file).st_size / 1e6
    out.print(f"{file}: the stack as of {said['at']}, {said['blobs']} contents, {size:.1f} MB", soft_wrap=True)


@app.command()
def restore(file: File, home: HomeOption = None) -> None:
    """Make a new state folder of a backup; `halfsure up` then goes on where the backup was."""
    settings = load_settings(home)
    _needs_local(settings)
    if settings.redis_host:
        raise backups.NoBackup("HALFSURE_REDIS_HOST is set: unset it, or give state.rdb of the backup to that Redis")
    said = backups.restore(Home(settings.home_path), file)
    what = f"the stack as of {said['at']}, {said['keys']} records, {said['blobs']} contents"
    out.print(f"Restored into {settings.home_path}: {what}. `halfsure up` starts it.", soft_wrap=True)


def _needs_local(settings: StackSettings) -> None:
    if settings.profile != "local":
        raise backups.NoBackup(
            f"the profile {settings.profile} is not backed up from here: its stores have means of their own, which"
            " docs/backup.md names"
        )
