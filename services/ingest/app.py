"""ingest: REST, sensors and sources -> SampleIngested, SampleRejected, SampleWithdrawn; and every sample's history."""

import os

from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelRolledBack,
    ProjectUpdated,
    SampleDiscarded,
    SampleIngested,
    SampleRejected,
    SampleScored,
    SampleSelected,
    SampleWithdrawn,
)
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
    samples = Samples(service, own)
    history = History(service)
    service.on(ProjectUpdated)(service.projects.update)
    service.on(SampleScored, SampleSelected, SampleDiscarded, LabelAccepted, LabelRetracted)(history.record)
    service.on(ModelActivated, ModelRolledBack)(history.activate)
    service.says(SampleIngested, SampleRejected, SampleWithdrawn)
    service.on_start(service.projects.load)
    service.every(1.0, samples.erase)
    service.api.include_router(routes(samples, history))
    sensors(samples)
    # The file may name variables that whoever starts this sets, such as a device's address: no settings of ours.
    feed(samples, own.sources, os.environ)  # noqa: TID251
    return service
