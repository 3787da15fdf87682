"""The errors a user can put right."""

from services.cli.backing import NoBacking
from services.cli.baseline import BaselineFailed
from services.cli.build import BuildFailed
from services.cli.home import AlreadyRunning
from services.cli.player import Stalled
from services.cli.ports import BadPorts, PortsBusy
from services.cli.reaching import NothingToReach
from services.cli.redis import NoRedis
from services.cli.rest import Away, Refused
from services.cli.runfile import RunFileError
from services.cli.studio.server import StudioRefused
from services.cli.supervisor import StartFailed
from services.cli.tokens import NoSuchToken
from services.cli.toolchain import NoRuntime

EXPECTED = (
    AlreadyRunning,
    Away,
    BadPorts,
    BaselineFailed,
    BuildFailed,
    NoBacking,
    NoRedis,
    NoRuntime,
    NoSuchToken,
    NothingToReach,
    PortsBusy,
    Refused,
    RunFileError,
    Stalled,
    StartFailed,
    StudioRefused,
)
