"""select-uncertain: SampleScored -> SampleSelected, when the model is unsure and the budget allows."""

from services.contracts.events import (
    InferenceResult,
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelRejected,
    ModelRolledBack,
    PolicyUpdated,
    ProjectUpdated,
    RescoreRequested,
    SampleDiscarded,
    SampleEvicted,
    SampleExpired,
    SampleReranked,
    SampleScored,
    SampleScoringFailed,
    SampleSelected,
    SampleWithdrawn,
    TaskExpired,
    TaskLeased,
    TaskReleased,
    TaskSkipped,
)
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings
from services.select_uncertain.asking import Asking
from services.select_uncertain.candidates import TURN, Candidates
from services.select_uncertain.policies import Policies
from services.select_uncertain.routes import routes


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    """The service and what it listens to."""
    service = Service("select-uncertain", settings, connect)
    policies = Policies(service)
    candidates = Candidates(service, policies)
    asking = Asking(service, candidates, policies)
    service.on(SampleScored, emits=[SampleReranked, InferenceResult], serial=TURN)(candidates.scored)
    service.on(SampleScoringFailed, emits=[SampleSelected], serial=TURN)(candidates.unscorable)
    service.on(LabelAccepted, serial=TURN)(candidates.labelled)
    service.on(LabelRetracted, serial=TURN)(candidates.retracted)
    service.on(TaskSkipped, serial=TURN)(candidates.skipped)
    service.on(TaskLeased)(candidates.held)
    service.on(TaskReleased, TaskExpired)(candidates.let_go)
    service.on(SampleWithdrawn, serial=TURN)(candidates.withdrawn)
    service.on(SampleExpired, emits=[SampleEvicted], serial=TURN)(candidates.expired)
    service.on(ModelActivated, ModelRolledBack, serial=TURN)(candidates.activated)
    service.on(ModelRejected, serial=TURN)(candidates.judged)
    service.on(ProjectUpdated)(service.projects.update)
    service.says(SampleSelected, SampleDiscarded, SampleEvicted, RescoreRequested, PolicyUpdated)
    service.projects.on_deleted(candidates.forget)
    service.on_start(service.projects.load)
    service.on_start(candidates.load)
    service.every(0.25, asking.tick)
    service.api.include_router(routes(asking))
    return service
