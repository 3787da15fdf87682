"""portal: Task*, Label*, Training*, Model*, ProjectUpdated -> the event stream; the page; every service's REST."""

from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ProjectUpdated,
    TaskExpired,
    TaskLeased,
    TaskQueued,
    TaskReleased,
    TaskSkipped,
    TrainingCancelled,
    TrainingFailed,
    TrainingRequested,
    TrainingStarted,
    TrainingSucceeded,
)
from services.portal import gateway, pages, routes
from services.portal.feed import LOCK, Feed
from services.portal.settings import PortalSettings
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings

TASKS = (TaskQueued, TaskLeased, TaskReleased, TaskExpired, TaskSkipped)
TRAINING = (TrainingRequested, TrainingStarted, TrainingSucceeded, TrainingFailed, TrainingCancelled)
MODELS = (ModelRegistered, ModelRejected, ModelActivated, ModelRolledBack)


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    service = Service("portal", settings, connect)
    own = PortalSettings()
    feed = Feed(service)
    service.on(*TASKS, LabelAccepted, LabelRetracted, *TRAINING, *MODELS, ProjectUpdated, serial=LOCK)(feed.note)
    service.on_start(feed.look)
    service.every(own.look_seconds, feed.look)
    service.api.include_router(routes.routes(feed, own))
    service.api.include_router(gateway.routes(service, own.services))
    service.api.include_router(pages.routes(pages.assets()))
    return service
