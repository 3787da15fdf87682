"""retrain-trigger: LabelAccepted -> TrainingRequested -> ModelActivated or ModelRejected; owns projects and models."""

from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ProjectUpdated,
    SampleWithdrawn,
    ScoresSummarised,
    TrainingCancelled,
    TrainingFailed,
    TrainingRequested,
    TrainingStarted,
    TrainingSucceeded,
)
from services.retrain_trigger import backend_routes, model_routes, project_routes, run_routes
from services.retrain_trigger.backends import Backend
from services.retrain_trigger.backends.choice import chosen
from services.retrain_trigger.catalogue import Catalogue
from services.retrain_trigger.erasing import Erasing
from services.retrain_trigger.flights import Flights
from services.retrain_trigger.labels import TURN, Labels
from services.retrain_trigger.marks import Noticing
from services.retrain_trigger.mirror import mirrored
from services.retrain_trigger.pipeline import Pipeline
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.runs import Runs
from services.retrain_trigger.settings import RetrainTriggerSettings
from services.retrain_trigger.watch import Watch
from services.runtime import delivery
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings
from services.runtime.signing import Signer


def create(settings: RuntimeSettings, connect: Connect, backend: Backend | None = None) -> Service:
    """The service and what it listens to; what a run does and says is in pipeline.py."""
    service = Service("retrain-trigger", settings, connect)
    own = RetrainTriggerSettings()
    backend = backend or chosen(service, own)
    signer = Signer(own.model_key)
    catalogue = Catalogue(service, signer)
    labels = Labels(service, backend.forget)
    registry = Registry(service, signer)
    runs = Runs(service, labels)
    pipeline = Pipeline(service, own, labels, registry, runs, backend)
    watch = Watch(service, labels, registry)
    noticing = Noticing(service)
    flights = Flights(service, own, labels, registry, runs, pipeline, noticing)

    service.on(LabelAccepted, serial=TURN)(labels.accept)
    service.on(LabelRetracted, serial=TURN)(labels.retract)
    service.on(SampleWithdrawn, serial=TURN)(labels.withdraw)
    service.on(ScoresSummarised)(noticing.summarised)
    service.on(ModelLoaded)(registry.loaded)
    service.on(ModelLoadFailed, emits=[ModelRolledBack])(registry.load_failed)
    service.says(ProjectUpdated, TrainingRequested, TrainingStarted, TrainingSucceeded, TrainingFailed)
    service.says(TrainingCancelled, ModelRegistered, ModelActivated, ModelRejected, ModelRolledBack)
    service.on_start(service.projects.load)
    service.on_start(labels.load)
    service.on_start(flights.start)
    service.on_stop(backend.close)
    service.on_stop(flights.stop)
    service.check("workflows", flights.unready)
    service.every(own.check_seconds, flights.consider)
    service.every(own.tend_seconds, flights.tend)
    service.every(own.tend_seconds, watch.look)
    service.every(own.tend_seconds, Erasing(runs).sweep)
    service.every(own.tend_seconds, noticing.arrange)
    delivery.job_route(service, noticing.called)
    mirrored(registry, runs)
    service.every(own.refresh_seconds, labels.load)
    service.api.include_router(project_routes.routes(catalogue, flights))
    service.api.include_router(run_routes.routes(runs, flights))
    service.api.include_router(model_routes.routes(registry))
    service.api.include_router(backend_routes.routes(runs, backend))
    return service
