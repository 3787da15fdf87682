"""Signs of life on the bus, for whoever watches many sites: `ServiceHeartbeat`, at a set interval."""

import platform
from typing import TYPE_CHECKING

from services.contracts.events import ServiceHeartbeat

if TYPE_CHECKING:
    from services.runtime.service import Service

NO_PROJECT = "*"  # it is about all of them


def heartbeat(service: "Service", seconds: float) -> None:
    """Have `service` say every so many seconds that this replica is alive."""

    async def beat() -> None:
        unit = await service.unit()
        site, instance = service.settings.siteid, f"{platform.node()}-{service.outbox.slot}"
        # The number of the interval, not of the beat: it goes on where a restart would begin to count anew.
        number = int(service.clock.now().timestamp() // seconds)
        event = ServiceHeartbeat(
            project=NO_PROJECT,
            service=service.app_id,
            instance=instance,
            site=site,
            sequence=number,
            waiting=service.waiting,
            dead_letters=(await service.deadletters.counts())[0],
        )
        unit.emit(event)
        await unit.commit()

    service.says(ServiceHeartbeat)
    service.every(seconds, beat)
