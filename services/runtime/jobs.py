"""Calls at a time: Dapr's scheduler calls `POST /job/{name}` on this service's own sidecar's word."""

from dapr.aio.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc._jobs import Job
from grpc import StatusCode

from services.contracts.cron import with_seconds
from services.runtime.errors import Unavailable


class DaprJobs:
    """Dapr's jobs API. A call is made at least once, to one replica."""

    def __init__(self, client: DaprClient) -> None:
        self._client = client

    async def schedule(self, name: str, schedule: str) -> None:
        wanted = with_seconds(schedule)
        try:
            # Written anew, `@every` would count from now; so what is as it should be is left alone.
            if await self._scheduled(name) != wanted:
                await self._client.schedule_job(Job(name=name, schedule=wanted), overwrite=True)
        except DaprGrpcError as error:
            raise Unavailable(f"scheduler: {error.details()}") from error

    async def cancel(self, name: str) -> None:
        try:
            await self._client.delete_job(name)
        except DaprGrpcError as error:
            if error.code() is not StatusCode.NOT_FOUND:
                raise Unavailable(f"scheduler: {error.details()}") from error

    async def _scheduled(self, name: str) -> str | None:
        try:
            return (await self._client.get_job(name)).schedule
        except DaprGrpcError as error:
            if error.code() in (StatusCode.NOT_FOUND, StatusCode.INTERNAL, StatusCode.UNKNOWN):
                return None  # daprd 1.18 has no code of its own for a job that is not there
            raise
