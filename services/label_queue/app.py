"""label-queue: SampleSelected, SampleWithdrawn -> Task*, Label*; and REST for annotators and reviewers."""

from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    LabelSubmitted,
    ModelActivated,
    ModelRolledBack,
    ProjectUpdated,
    SampleEvicted,
    SampleReranked,
    SampleSelected,
    SampleWithdrawn,
    TaskExpired,
    TaskLeased,
    TaskQueued,
    TaskReleased,
    TaskSkipped,
)
from services.label_queue.answers import Answers
from services.label_queue.claims import Claims
from services.label_queue.exports import Exports
from services.label_queue.imports import Imports
from services.label_queue.quality import Quality
from services.label_queue.queue import Queue
from services.label_queue.revising import Revising
from services.label_queue.routes import Parts, routes
from services.label_queue.schemas import Schemas
from services.label_queue.settings import LabelQueueSettings
from services.label_queue.store import SEGMENTS_LOCK, Tasks
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    service = Service("label-queue", settings, connect)
    own = LabelQueueSettings()
    tasks = Tasks(service, own.refresh_seconds)
    revising = Revising(service, tasks)
    queue, claims, schemas = Queue(service, tasks), Claims(service, tasks, own), Schemas(tasks)
    service.on(SampleSelected, emits=[TaskQueued, TaskSkipped], serial=SEGMENTS_LOCK)(queue.enqueue)
    service.on(SampleWithdrawn, emits=[TaskSkipped, LabelRetracted])(queue.withdraw)
    service.on(SampleReranked, serial=SEGMENTS_LOCK)(revising.rerank)
    service.on(SampleEvicted, emits=[TaskSkipped])(revising.evict)
    service.on(ModelActivated, ModelRolledBack)(queue.activate)
    service.on(ProjectUpdated)(service.projects.update)
    service.says(TaskLeased, TaskReleased, TaskExpired, LabelSubmitted, LabelAccepted)
    service.projects.on_deleted(tasks.forget)
    service.on_start(service.projects.load)
    service.on_start(tasks.load)
    service.every(own.sweep_seconds, claims.sweep)
    service.every(own.flush_seconds, tasks.flush)
    service.every(own.read_on_seconds, tasks.read_on)
    service.every(own.sweep_seconds, service.projects.load)
    service.every(own.sweep_seconds, schemas.carry_out_all)
    exchange = Imports(tasks), Exports(tasks)
    parts = Parts(tasks, queue, claims, Answers(tasks, claims), schemas, *exchange, Quality(tasks, own))
    service.api.include_router(routes(parts))
    return service
