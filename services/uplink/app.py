"""uplink: a site's store-and-forward; what is asked about goes up to the cloud, labels and models come down."""

from services.contracts.events import (
    BufferFlushRequested,
    ModelLoaded,
    ModelLoadFailed,
    ProjectUpdated,
    SampleSelected,
    SampleUploaded,
)
from services.runtime.blobs import blob_store
from services.runtime.ports import Publisher
from services.runtime.service import Connect, Service
from services.runtime.settings import RuntimeSettings
from services.uplink.carrier import Carrier
from services.uplink.door import Door
from services.uplink.forwarding import Forwarding
from services.uplink.hub import Hub, IotHub
from services.uplink.routes import CLOUD, CONTENT, routes
from services.uplink.settings import UplinkSettings
from services.uplink.steering import TWIN, Steering
from services.uplink.traffic import DOWN, UP


def create(settings: RuntimeSettings, connect: Connect, hub: Hub | None = None) -> Service:
    """The service: a lane up for samples, which may wait for a window, and one for the rest; the main lane down, and
    one for what the twin wants."""
    service = Service("uplink", settings, connect)
    own = UplinkSettings()
    forwarding = Forwarding(service, own)
    far = blob_store(own.cloud_blobs or settings.blobs)

    door = Door(service, own)

    def up(publisher: Publisher) -> Publisher:
        return Carrier(service, publisher, (service.blobs, far), own, door)

    def down(publisher: Publisher) -> Publisher:
        return Carrier(service, publisher, (far, service.blobs), own)

    service.lane(CLOUD, own.cloud, through=up, full=own.waiting)
    service.lane(CONTENT, own.cloud, through=up, full=own.waiting)
    service.lane(through=down, full=own.waiting)
    for event in UP:
        lane = CONTENT if event is SampleSelected else CLOUD
        service.on(event, emits=[event], lane=lane)(forwarding.hand_on)
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
    service.on(BufferFlushRequested)(door.flush)
    service.says(SampleUploaded)
    service.on_start(service.projects.load)
    service.on_start(door.load)
    service.api.include_router(routes(service, door))
    return service
