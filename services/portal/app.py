"""portal: Task*, Label*, Training*, Model*, ProjectUpdated -> the event stream and notices; the page; all REST."""

from collections.abc import Sequence
from typing import Any

from services.contracts.envelope import Message
from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ProjectUpdated,
    ServiceHeartbeat,
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
from services.portal.notifications import routes as notices
from services.portal.notifications.config import load
from services.portal.notifications.desk import Desk
from services.portal.settings import PortalSettings
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings
from services.runtime.unit import Unit

TASKS = (TaskQueued, TaskLeased, TaskReleased, TaskExpired, TaskSkipped)
TRAINING = (TrainingRequested, TrainingStarted, TrainingSucceeded, TrainingFailed, TrainingCancelled)
MODELS = (ModelRegistered, ModelRejected, ModelActivated, ModelRolledBack)


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    service = Service("portal", settings, connect)
    own = PortalSettings()
    feed, desk = Feed(service), Desk(service, load(own.notifications))

    async def note(batch: Sequence[Message[Any]], unit: Unit) -> None:
        await feed.note(batch, unit)
        await desk.note(batch, unit)

    service.on(*TASKS, LabelAccepted, LabelRetracted, *TRAINING, *MODELS, ProjectUpdated, serial=LOCK)(note)
    service.on(ServiceHeartbeat, serial=LOCK)(desk.note)
    service.on_start(feed.look)
    service.every(own.look_seconds, feed.look)
    service.every(own.send_seconds, desk.send)
    service.every(own.waiting_seconds, desk.look)
    service.on_stop(desk.close)
    service.api.include_router(routes.routes(feed, own))
    service.api.include_router(notices.routes(desk))
    service.api.include_router(gateway.routes(service, own.services))
    service.api.include_router(pages.routes(pages.assets()))
    return service
