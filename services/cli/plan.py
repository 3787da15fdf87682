"""What the processes of a stack are written down from, and what is the same in all of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from services.cli import authority
from services.cli import backing as servers
from services.cli.home import Home, Secrets
from services.cli.ports import PortPlan
from services.cli.profiles import PROFILES, Place
from services.cli.runfile import RunFile
from services.cli.settings import StackSettings

BACKING_STAGE, CONTROL_STAGE, SIDECAR_STAGE, APP_STAGE = range(4)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """All that is needed to write down the processes of one stack."""

    settings: StackSettings
    run_file: RunFile
    ports: PortPlan
    home: Home
    secrets: Secrets
    dapr_bin: Path

    @property
    def places(self) -> tuple[Place, ...]:
        return PROFILES[self.settings.profile]

    @cached_property
    def signature(self) -> str:
        """For the container of blobs, the same for all processes."""
        return servers.signature()

    @property
    def tls(self) -> tuple[str, ...]:
        """What makes placement and scheduler speak mTLS, if they shall."""
        address = f"{LOOPBACK}:{self.ports['sentry']}" if self.settings.mtls else ""
        return authority.control_flags(self.authority, address) if self.settings.mtls else ()

    @property
    def authority(self) -> Path:
        """The folder of the certificate authority, for mTLS."""
        return self.home.path / "sentry"

    @property
    def redis_host(self) -> str:
        return self.settings.redis_host or f"{LOOPBACK}:{self.ports['redis']}"


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, and `extra`."""
    return {**os.environ, **extra}
