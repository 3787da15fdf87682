"""Tags of an OPC UA server: subscribed to, and put together into rows, one for each moment at which a tag changed."""

import time
from datetime import UTC, datetime

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.subscription import DataChangeEvent, StatusChangeEvent, Subscription

from services.ingest.sources.config import OpcUa
from services.ingest.sources.door import Door, Reading, Trouble
from services.ingest.sources.rows import Change, Rows

WAITING = 10_000
"""Notifications that may wait for us; then the oldest are dropped."""
QUEUE = 100  # changes of a tag that the server keeps between two messages
ALIVE_SECONDS = 1.0


async def run(source: OpcUa, door: Door) -> None:
    """Subscribe, and bring rows until the connection is lost."""
    client = Client(source.url, timeout=source.timeout_seconds, watchdog_intervall=ALIVE_SECONDS)
    try:
        if source.username and source.password is not None:
            client.set_user(source.username)
            client.set_password(source.password)
        if source.security:
            await client.set_security_string(source.security)
        async with client:
            await _read(source, door, client)
    except (ua.UaError, OSError, TimeoutError) as error:
        raise Trouble(f"{source.url}: {str(error) or type(error).__name__}") from None


async def _read(source: OpcUa, door: Door, client: Client) -> None:
    columns = {client.get_node(node).nodeid: column for column, node in source.nodes.items()}
    if len(columns) < len(source.nodes):
        raise Trouble("two columns have the same node; each needs its own")
    subscription = await client.create_subscription(source.period_seconds * 1000, queue_maxsize=WAITING)
    nodes = [client.get_node(node) for node in columns]
    sampling = ua.Duration(source.period_seconds * 1000 / 10)
    handles = await subscription.subscribe_data_change(nodes, queuesize=QUEUE, sampling_interval=sampling)
    bad = [f"{source.nodes[columns[node.nodeid]]} ({handle.name})" for node, handle in _refused(nodes, handles)]
    if bad:
        raise Trouble(f"the server has no tag {', '.join(bad)} to subscribe to")
    door.connected()
    rows = Rows(tuple(source.nodes))
    while True:
        changes = await _changes(subscription, columns, client, door)
        for moment, row in rows.add(changes):
            if door.due(time.monotonic()):
                door.offer(Reading(row=row, sequence=moment, captured_at=_time(moment)))


def _refused(nodes: list, handles: list) -> list[tuple]:
    return [(node, handle) for node, handle in zip(nodes, handles, strict=True) if isinstance(handle, ua.StatusCode)]


async def _changes(subscription: Subscription, columns: dict, client: Client, door: Door) -> list[Change]:
    """What the server has sent: at least one change, and all that came with it."""
    found: list[Change] = []
    wait = ALIVE_SECONDS
    while True:
        event = await subscription.next_event(wait)
        if event is None:
            if found:
                return found
            await client.check_connection()
            door.status.seen(door.now())
            continue
        # What one message brought is in the queue already; the next message is not waited for.
        wait = 0.01
        if isinstance(event, StatusChangeEvent):
            raise Trouble(f"the server has ended the subscription: {event.notification.Status.name}")
        if not isinstance(event, DataChangeEvent):
            continue
        value = event.data.monitored_item.Value
        if not value.StatusCode.is_good():
            door.status.drop("quality")
        else:
            when = value.SourceTimestamp or value.ServerTimestamp or datetime.now(UTC)
            found.append(Change(columns[event.node.nodeid], _plain(event.value), _moment(when)))


def _moment(when: datetime) -> int:
    """Microseconds since 1970; asyncua's times have no zone and are UTC."""
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0, round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000))


def _time(moment: int) -> datetime:
    return datetime.fromtimestamp(moment / 1_000_000, UTC)


def _plain(value: object) -> object:
    """A tag's value as JSON has it."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float | str):
        return value
    return str(value)
