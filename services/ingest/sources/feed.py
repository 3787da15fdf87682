"""Ties the sources of a file to ingest: routes, background tasks, and readiness when the file cannot be used."""

from collections.abc import Mapping
from pathlib import Path

import structlog

from services.ingest.samples import Samples
from services.ingest.sources import binding, config
from services.ingest.sources.routes import routes
from services.ingest.sources.supervisor import SourcesKeeper

log = structlog.get_logger()


def feed(samples: Samples, path: Path | None, environment: Mapping[str, str]) -> None:
    """Run the sources that the file names; no file: none. A file that cannot be used leaves ingest not ready, with a
    sentence that names the field, and runs nothing."""
    service = samples.service
    sources: tuple[config.Source, ...] = ()
    try:
        sources = config.read(path, environment) if path else ()
    except config.SourcesProblem as error:
        problem = str(error)
        log.error("no source runs", reason=problem)
        service.check("sources", lambda: problem)
    keeper = SourcesKeeper(samples, sources)
    service.api.include_router(routes(keeper))
    for one in keeper.keepers.values():
        if isinstance(one.source, config.Binding):
            binding.listen(service, one.door, one.source.component)
    service.on_start(keeper.start)
    service.on_stop(keeper.stop)
