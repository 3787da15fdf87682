"""uplink: a site's store-and-forward; what is asked about goes up to the cloud, labels and models come down."""

from services.contracts.events import ProjectUpdated
from services.runtime.blobs import blob_store
from services.runtime.ports import Publisher
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings
from services.uplink.carrier import Carrier
from services.uplink.forwarding import Forwarding
from services.uplink.routes import CLOUD, routes
from services.uplink.settings import UplinkSettings
from services.uplink.traffic import DOWN, UP


def create(settings: RuntimeSettings, connect: Connect) -> Service:
    """The service: one lane up with an outbox of its own, and the main lane down."""
    service = Service("uplink", settings, connect)
    own = UplinkSettings()
    forwarding = Forwarding(service, own)
    far = blob_store(own.cloud_blobs or settings.blobs)

    def up(publisher: Publisher) -> Publisher:
        return Carrier(service, publisher, service.blobs, far, own)

    def down(publisher: Publisher) -> Publisher:
        return Carrier(service, publisher, far, service.blobs, own)

    service.lane(CLOUD, own.cloud, through=up, full=own.waiting)
    service.lane(through=down, full=own.waiting)
    for event in UP:
        service.on(event, emits=[event], lane=CLOUD)(forwarding.hand_on)
    for event in DOWN:
        handler = forwarding.project if event is ProjectUpdated else forwarding.hand_on
        service.on(event, emits=[event])(handler)
    service.on_start(service.projects.load)
    service.api.include_router(routes(service))
    return service
