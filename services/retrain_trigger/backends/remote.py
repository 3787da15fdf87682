"""One training, somewhere else: the entry point of a Kubernetes Job, of an Azure ML job, of a container of your own.

    HALFSURE_BLOBS=URL python -m services.retrain_trigger.backends.remote WORK_URI RECORD_URI

backends/exchange.py is the contract. This is its reference implementation, and the one that the project's own images
run: the same trainer as on one machine, in a folder that is gone afterwards. Exit codes: 0 the record is there,
2 the work cannot be read, 75 the blob store is away, any other: something broke. 75 and those may be tried again.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from services.retrain_trigger import trainer
from services.retrain_trigger.backends import files
from services.retrain_trigger.backends.contents import ContentGone, Contents
from services.retrain_trigger.backends.exchange import Exchange
from services.runtime import telemetry
from services.runtime.blobs import blob_store
from services.runtime.errors import Retry
from services.runtime.ports import Blobs
from services.runtime.settings import RuntimeSettings

log = structlog.get_logger()

DONE, BAD_WORK, AWAY = 0, 2, 75  # 75: EX_TEMPFAIL of sysexits.h


async def carry_out(work_uri: str, to: str, blobs: Blobs, folder: Path) -> int:
    """Do the work, with `folder` for its files; the exit code. Raises Retry when the blob store is away."""
    exchange = Exchange(lambda: blobs)
    try:
        work = await exchange.take(work_uri)
    except (KeyError, ValidationError) as error:
        log.error("the work cannot be read", uri=work_uri, reason=str(error))
        return BAD_WORK
    if await exchange.record(to) is not None:
        log.info("done already", run=work.run_id)
        return DONE
    try:
        job = await files.bring(work, Contents(blobs.get, folder / "contents"))
    except ContentGone as error:
        await exchange.refuse(work, to, {"code": "content-gone", "message": str(error)}, str(error))
        return DONE
    out = folder / work.run_id
    # In this very process: it has nothing else to do, and whoever stops it stops the training.
    code = trainer.main([str(files.write_job(job, out))])
    text, result = files.said(out), files.result(out)
    if code == trainer.EXIT_BAD_JOB or result is None:
        return BAD_WORK
    if error := result.get("error"):
        await exchange.refuse(work, to, error, text)
    else:
        await exchange.hand_over(work, to, files.model(out), result, text)
    log.info("handed over", run=work.run_id, seconds=result.get("seconds"))
    return DONE


async def _main(work_uri: str, to: str) -> int:
    settings = RuntimeSettings()
    blobs: Any = blob_store(settings.blobs)
    try:
        with tempfile.TemporaryDirectory(prefix="halfsure-") as folder:
            return await carry_out(work_uri, to, blobs, Path(folder))
    except Retry as error:
        log.error("the blob store is away", reason=str(error))
        return AWAY
    finally:
        if close := getattr(blobs, "close", None):
            await close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.retrain_trigger.backends.remote",
        description="Train one model: work from the blob store HALFSURE_BLOBS, a model and a record into it.",
        epilog="Exit codes: 0 the record is there, 2 the work cannot be read, 75 the blob store is away.",
    )
    parser.add_argument("work", metavar="WORK_URI", help="the work, as backends/exchange.py describes it")
    parser.add_argument("record", metavar="RECORD_URI", help="where the record goes, written last")
    options = parser.parse_args(arguments)
    # As the first process of a container it would not hear of it otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    telemetry.configure("training", "info")
    return asyncio.run(_main(options.work, options.record))


if __name__ == "__main__":
    sys.exit(main())
