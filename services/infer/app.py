"""infer: SampleIngested -> SampleScored, SampleScoringFailed; ModelActivated -> ModelLoaded, ModelLoadFailed."""

from services.contracts.events import (
    ModelActivated,
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    ModelRolledBack,
    ProjectUpdated,
    RescoreRequested,
    SampleIngested,
    SampleScored,
    SampleScoringFailed,
    SampleWithdrawn,
    ScoresSummarised,
)
from services.infer import rescore_routes
from services.infer.forgetting import Forgetting
from services.infer.predicting import Predictor
from services.infer.rescoring import TURN, Rescoring
from services.infer.routes import Answering, routes
from services.infer.schedules import Schedules
from services.infer.scoring import Scoring
from services.infer.serving import Serving
from services.infer.settings import InferSettings
from services.infer.wanted import Wanted
from services.runtime import delivery
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    service = Service("infer", settings, connect)
    own = InferSettings()
    wanted = Wanted(service)
    serving = Serving(service, wanted, own)
    scoring = Scoring(service, serving, own)
    rescoring = Rescoring(service, serving, scoring, own)
    schedules = Schedules(service, serving, rescoring)
    predictor = Predictor(scoring, own.batch, own.budget_seconds)
    answering = Answering(service, serving, scoring, predictor, own.deadline_seconds)

    service.on(ProjectUpdated)(service.projects.update)
    service.on(SampleIngested, emits=[SampleScored, SampleScoringFailed])(scoring.ingest)
    service.on(SampleWithdrawn)(Forgetting(service).forget)
    service.on(RescoreRequested, emits=[SampleScored, SampleScoringFailed], serial=TURN)(rescoring.request)
    service.on(ModelRegistered, emits=[ModelLoaded, ModelLoadFailed])(wanted.register)
    service.on(ModelActivated, ModelRolledBack, emits=[ModelLoaded, ModelLoadFailed])(wanted.activate)

    service.on_start(service.projects.load)
    service.on_start(serving.start)
    service.on_start(wanted.start)
    service.every(0.2, serving.reconcile)
    service.every(2.0, wanted.catch_up)
    service.every(0.2, rescoring.work)
    service.every(2.0, schedules.arrange)
    delivery.job_route(service, schedules.called)
    service.every(2.0, scoring.shadows.store)
    service.every(1.0, scoring.summaries.say)
    service.says(ScoresSummarised)
    service.check("models", serving.unready)
    service.api.include_router(routes(answering))
    service.api.include_router(rescore_routes.routes(serving, rescoring, schedules))
    return service
