"""The servers behind the profiles on this machine, besides Redis: found, or an error that says how to get them.

Service Bus is a stand-in of our own, Azurite is Microsoft's for Blob Storage; PostgreSQL and mosquitto are themselves.
"""

import datetime
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from services.cli.profiles import PROFILES
from services.cli.settings import StackSettings
from services.cli.toolchain import cache_root

AZURITE = "3.35.0"
CONTAINER = "halfsure"
# Azurite's only account and its key: published, the same everywhere, of no worth.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_POSTGRES = ("/usr/lib/postgresql/1[5-9]/bin", "/opt/homebrew/opt/postgresql@1[5-9]/bin", "/usr/pgsql-1[5-9]/bin")


class NoBacking(Exception):
    """A server that the profile needs is not on this machine."""


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs."""
    folders = [Path(folder) for pattern in _POSTGRES for folder in sorted(glob.glob(pattern), reverse=True)]
    on_path = shutil.which("postgres")
    for folder in [*folders, *([Path(on_path).parent] if on_path else [])]:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoBacking("no PostgreSQL 15 or newer: apt install postgresql, or brew install postgresql@15")


def find_mosquitto() -> Path:
    """The MQTT broker."""
    for place in (shutil.which("mosquitto"), "/usr/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"):
        if place and Path(place).exists():
            return Path(place)
    raise NoBacking("no mosquitto: apt install mosquitto, or brew install mosquitto")


def azurite_folder() -> Path:
    """Where Azurite is kept, outside the tree."""
    return cache_root() / "azurite" / AZURITE


def find_azurite() -> Path:
    """The program of the pinned version."""
    program = azurite_folder() / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        raise NoBacking(f"no Azurite {AZURITE}: `halfsure setup --profile azure` gets it with npm")
    return program


def need_proton() -> None:
    """The AMQP library of the Service Bus stand-in."""
    if find_spec("proton") is None:
        raise NoBacking("no python-qpid-proton for the Service Bus stand-in: `halfsure setup --profile azure` gets it")


def needs(settings: StackSettings) -> list[tuple[str, Callable[[], object]]]:
    """(what, how it is looked for) of all servers behind the profile but Redis; the look raises NoBacking."""
    looks: dict[str, Callable[[], object]] = {
        "servicebus": need_proton,
        "postgres": find_postgres,
        "azurite": find_azurite,
        "mosquitto": find_mosquitto,
    }
    wanted = [name for place in PROFILES[settings.profile] for name in place.backing]
    return [(name, looks[name]) for name in wanted if name in looks]


def missing_backing(settings: StackSettings) -> list[tuple[str, Callable[[], None]]]:
    """(what, how to get it) of what is missing and can be got by us. Raises NoBacking for the rest."""
    ways: dict[str, Callable[[], None]] = {
        "servicebus": partial(install_proton, settings.root),
        "azurite": install_azurite,
    }
    found = []
    for name, look in needs(settings):
        try:
            look()
        except NoBacking:
            if name not in ways:
                raise
            found.append((name, ways[name]))
    return found


def install_azurite() -> None:
    """Get Azurite with npm, about 20 s and 190 MB."""
    npm = shutil.which("npm")
    if npm is None:
        raise NoBacking("Azurite needs Node.js with npm: apt install nodejs npm, or nodejs.org")
    folder = azurite_folder()
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-fund", "--no-audit", "--silent", "--prefix", str(folder), f"azurite@{AZURITE}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NoBacking(f"npm could not install Azurite: {ended.stderr[-500:].strip()}")


def install_proton(root: Path) -> None:
    """Get python-qpid-proton into this environment; it is compiled, about a minute."""
    lock = root / "requirements" / "standins.txt"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    ended = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NoBacking(f"pip could not install what {lock.name} names: {ended.stderr[-500:].strip()}")


def postgres_command(programs: Path, port: int, folder: Path) -> tuple[str, ...]:
    """PostgreSQL on loopback, its database made at the first start."""
    data = folder / "postgres"
    # It refuses to run as root; in a user namespace of its own it is nobody, and files are still ours.
    nobody = ("unshare", "--user", "--map-user=65534", "--map-group=65534") if os.geteuid() == 0 else ()
    make = (
        f'[ -f "$1/PG_VERSION" ] || "{programs}/initdb" --pgdata "$1" --auth trust --username halfsure --encoding UTF8'
    )
    run = f'exec "{programs}/postgres" -D "$1" -p {port} -k "" -c listen_addresses=127.0.0.1 -c max_connections=100'
    return (*nobody, "/bin/sh", "-c", f"{make} && {run}", "postgres", str(data))


def postgres_connection(port: int) -> str:
    return f"host=127.0.0.1 port={port} user=halfsure dbname=postgres sslmode=disable"


def azurite_command(program: Path, port: int, folder: Path) -> tuple[str, ...]:
    """Azurite's blob service on loopback, with its container."""
    return (
        *(sys.executable, "-m", "services.standins.azurite", "--container", container_url(port), "--"),
        *(str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "azurite")),
        *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
    )


def container_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/{ACCOUNT}/{CONTAINER}"


def signature() -> str:
    """A shared access signature for the container, as the query of a url; its host may be a forwarder's."""
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    allowed = ContainerSasPermissions(read=True, write=True, create=True, delete=True, list=True)
    return generate_container_sas(ACCOUNT, CONTAINER, account_key=KEY, permission=allowed, expiry=until)


def servicebus_connection(port: int) -> str:
    """As the real one's, with any key; the last word makes clients speak without TLS, to this port."""
    return (
        f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=RootManageSharedAccessKey;"
        "SharedAccessKey=c3RhbmQtaW4=;UseDevelopmentEmulator=true;"
    )


def mosquitto_command(program: Path, port: int, folder: Path) -> tuple[str, ...]:
    """An MQTT broker on loopback that keeps what it has queued; its defaults drop after 1,000 messages."""
    data = folder / "mosquitto"
    data.mkdir(parents=True, exist_ok=True)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
        f"persistence_location {data}/\nautosave_interval 1\nautosave_on_changes true\n"
        "max_inflight_messages 100\nmax_queued_messages 100000\nlog_dest stdout\n"
    )
    return (str(program), "-c", str(config))
