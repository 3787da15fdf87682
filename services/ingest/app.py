"""ingest: REST, sensors, sources -> SampleIngested, -Rejected, -Withdrawn, -Expired; and every sample's history."""

import os

from services.contracts.events import (
    BufferFlushRequested,
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelRolledBack,
    ProjectUpdated,
    SampleDiscarded,
    SampleExpired,
    SampleIngested,
    SampleRejected,
    SampleScored,
    SampleSelected,
    SampleUploaded,
    SampleWithdrawn,
)
from services.ingest.buffer import Buffer
from services.ingest.buffer_routes import buffer_routes
from services.ingest.history import History
from services.ingest.routes import routes
from services.ingest.samples import Samples
from services.ingest.sensors import sensors
from services.ingest.settings import IngestSettings
from services.ingest.sources.feed import feed
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    """The service and what it listens to."""
    service = Service("ingest", settings, connect)
    own = IngestSettings()
    history = History(service)
    buffer = Buffer(service, history, own)
    samples = Samples(service, own, buffer, history)
    service.on(ProjectUpdated)(service.projects.update)
    service.on(SampleScored, SampleSelected, SampleDiscarded, LabelAccepted, LabelRetracted)(buffer.record)
    service.on(SampleUploaded)(buffer.uploaded)
    service.on(ModelActivated, ModelRolledBack)(history.activate)
    service.says(SampleIngested, SampleRejected, SampleWithdrawn, SampleExpired, BufferFlushRequested)
    service.on_start(service.projects.load)
    service.on_start(buffer.load)
    service.every(1.0, buffer.tend)
    service.every(1.0, samples.erase)
    service.api.include_router(routes(samples, history))
    service.api.include_router(buffer_routes(service, buffer))
    sensors(samples)
    # The file may name variables that whoever starts this sets, such as a device's address: no settings of ours.
    feed(samples, own.sources, os.environ)  # noqa: TID251
    return service
