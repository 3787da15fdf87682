"""uplink: a site's store-and-forward; what is asked about goes up to the cloud, labels and models come down."""

from services.contracts.events import ModelLoaded, ModelLoadFailed, ProjectUpdated
from services.runtime.blobs import blob_store
from services.runtime.ports import Publisher
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings
from services.uplink.carrier import Carrier
from services.uplink.forwarding import Forwarding
from services.uplink.hub import Hub, IotHub
from services.uplink.routes import CLOUD, routes
from services.uplink.settings import UplinkSettings
from services.uplink.steering import TWIN, Steering
from services.uplink.traffic import DOWN, UP


def create(settings: RuntimeSettings, connect: Connect, hub: Hub | None = None) -> Service:
    """The service: one lane up with an outbox of its own, the main lane down, and one for what the twin wants."""
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
    if own.twin:
        steering = Steering(service, forwarding, hub or IotHub(), far, own.blob_seconds)
        service.lane(TWIN)
        service.on(ModelLoaded, ModelLoadFailed, emits=[ModelLoaded, ModelLoadFailed], lane=CLOUD, serial=TWIN)(
            steering.loaded
        )
        service.every(0.5, steering.work)
        service.on_stop(steering.close)
    service.on_start(service.projects.load)
    service.api.include_router(routes(service))
    return service
