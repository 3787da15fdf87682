"""The errors a user can put right."""

from services.cli.backing import NoBacking
from services.cli.backup import NoBackup
from services.cli.baseline import BaselineFailed
from services.cli.build import BuildFailed
from services.cli.home import AlreadyRunning
from services.cli.player import Stalled
from services.cli.ports import BadPorts, PortsBusy
from services.cli.reaching import NothingToReach
from services.cli.redis import NoRedis
from services.cli.redis_copy import CopyFailed
from services.cli.rest import Away, Refused
from services.cli.runfile import RunFileError
from services.cli.studio.server import StudioRefused
from services.cli.subject import NoSubject
from services.cli.supervisor import StartFailed
from services.cli.tokens import NoSuchToken
from services.cli.toolchain import NoRuntime

EXPECTED = (
    AlreadyRunning,
    Away,
    BadPorts,
    BaselineFailed,
    BuildFailed,
    CopyFailed,
    NoBacking,
    NoBackup,
    NoRedis,
    NoRuntime,
    NoSubject,
    NoSuchToken,
    NothingToReach,
    PortsBusy,
    Refused,
    RunFileError,
    Stalled,
    StartFailed,
    StudioRefused,
)
