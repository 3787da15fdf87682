"""A stand-in for Azure Service Bus topics, over AMQP 1.0: for this machine and for tests, never for production.

The real daprd connects with `UseDevelopmentEmulator=true` in its connection string. It has topics, subscriptions,
peek-lock with expiry and renewal, settlement, delivery counts, dead letters, duplicate detection, batches and the limit
of 256 KiB for a message or a batch. It lacks authentication (any token is taken), sessions, scheduled messages, time to
live, filters, the management API, and above all a disk: what it holds is gone with it. Renewal extends all locks of a
link, not the one that is named.

    python -m services.standins.servicebus --port 8190 --subscriptions dapr/subscriptions.yaml --site edge-1
"""

# proton has its types loosely, and is only there where the stand-in is.
# pyright: reportMissingImports=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOptionalSubscript=false

import argparse
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from services.standins.entities import LOCK_SECONDS, MAX_DELIVERY, Namespace, Stored, Subscription, Topic, wanted

try:
    from proton import UNDESCRIBED, Array, Condition, Data, Delivery, Endpoint, Message, int32, symbol, timestamp
    from proton.handlers import MessagingHandler
    from proton.reactor import Container
except ImportError:
    sys.exit("The Service Bus stand-in needs python-qpid-proton: pip install -r requirements/standins.txt")

MAX_BYTES = 256 << 10
BATCH_SECTION = 0x75  # amqp:data, of which a batch (message format 0x80013700) has one for each message
RPC = ("$cbs", "$management")
CREDIT = 500
TICK_SECONDS = 1.0


class ServiceBus(MessagingHandler):
    """The AMQP rim around a namespace."""

    def __init__(self, address: str, namespace: Namespace) -> None:
        super().__init__(prefetch=CREDIT, auto_accept=False, auto_settle=False)
        self._address = address
        self._namespace = namespace
        self._readers: dict[str, list[Any]] = {path: [] for path in namespace.subscriptions}
        self._replies: dict[Any, dict[tuple[str, str | None], Any]] = {}
        self._holders: dict[Any, set[str]] = {}

    # Connections and links.

    def on_start(self, event: Any) -> None:
        self._container = event.container
        event.container.listen(self._address)
        event.container.schedule(TICK_SECONDS, self)

    def on_timer_task(self, event: Any) -> None:
        now = time.time()
        for path, subscription in self._namespace.subscriptions.items():
            if subscription.expire(now):
                self._hand_out(path)
        self._container.schedule(TICK_SECONDS, self)

    def on_link_opening(self, event: Any) -> None:
        link = event.link
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        address = _address(link)
        if link.is_sender:
            link.snd_settle_mode, link.rcv_settle_mode = link.remote_snd_settle_mode, link.remote_rcv_settle_mode
        else:
            link.max_message_size = MAX_BYTES
        if address.endswith(RPC):
            if link.is_sender:
                self._replies.setdefault(event.connection, {})[address, link.remote_target.address] = link
        elif link.is_sender and address in self._readers:
            self._readers[address].append(link)
            self._holders.setdefault(event.connection, set()).add(address)
        elif link.is_sender or address not in self._namespace.topics:
            words = f"The messaging entity {address!r} could not be found."
            link.condition = Condition("amqp:not-found", words)

    def on_link_opened(self, event: Any) -> None:
        if event.link.condition:
            event.link.close()

    def on_link_closing(self, event: Any) -> None:
        self._forget(event.link)
        event.link.close()

    def on_disconnected(self, event: Any) -> None:
        self._replies.pop(event.connection, None)
        for path in self._holders.pop(event.connection, set()):
            for link in [link for link in self._readers[path] if link.connection == event.connection]:
                self._forget(link)

    def _forget(self, link: Any) -> None:
        path = _address(link)
        if link.is_sender and link in self._readers.get(path, ()):
            self._readers[path].remove(link)
            self._namespace.subscriptions[path].lose(link)
            self._hand_out(path)

    # What goes out.

    def on_link_flow(self, event: Any) -> None:
        link = event.link
        if link.is_sender:
            if _address(link) in self._readers:
                self._hand_out(_address(link))
            if link.drain_mode:
                link.drained()

    def _hand_out(self, path: str) -> None:
        """Deliver what is ready to whoever has credit, in turns."""
        subscription, now = self._namespace.subscriptions[path], time.time()
        for link in list(self._readers[path]):
            if link.state & (Endpoint.REMOTE_CLOSED | Endpoint.LOCAL_CLOSED):
                continue
            while link.credit > 0:
                tag = uuid.uuid4().hex[:16]  # 16 bytes: clients make the lock token of it
                stored = subscription.take(tag, link, now)
                if stored is None:
                    return
                delivery = link.delivery(tag)
                link.stream(_encoded(stored, now + self._namespace.lock_seconds))
                link.advance()
                delivery.context = tag

    def _settle(self, path: str, delivery: Any) -> None:
        subscription, tag = self._namespace.subscriptions[path], delivery.tag
        state = delivery.remote_state
        if state == Delivery.ACCEPTED:
            subscription.complete(tag)
        elif state == Delivery.REJECTED:
            subscription.reject(tag)
        elif state == Delivery.RELEASED:
            subscription.give_back(tag)
        else:
            subscription.abandon(tag)
        delivery.update(state)
        delivery.settle()
        for other in (path, f"{path}/$deadletterqueue"):
            if other in self._readers:
                self._hand_out(other)

    # What comes in.

    def on_delivery(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        if link.is_sender:
            path = _address(link)
            if delivery.updated and delivery.remote_state and path in self._readers:
                self._settle(path, delivery)
            elif delivery.updated and delivery.settled:
                delivery.settle()
        elif delivery.readable and not delivery.partial:
            raw = link.recv(delivery.pending)
            link.advance()
            address = _address(link)
            if address.endswith(RPC):
                self._answer(event.connection, address, _decoded(raw))
                outcome = Delivery.ACCEPTED
            else:
                outcome = self._receive(address, raw)
            delivery.update(outcome)
            delivery.settle()

    def _receive(self, topic: str, raw: bytes) -> Any:
        if len(raw) > MAX_BYTES:
            return Delivery.REJECTED
        now = time.time()
        for part in _parts(raw):
            message = _decoded(part)
            self._namespace.topics[topic].send(message, message.id and str(message.id), now)
        for path in self._readers:
            if path.startswith(f"{topic}/"):
                self._hand_out(path)
        return Delivery.ACCEPTED

    def _answer(self, connection: Any, address: str, request: Message) -> None:
        """Tokens are taken as they are; locks are renewed."""
        answer = Message(correlation_id=request.id)
        status = {"status-code": int32(200), "statusCode": int32(200)}
        answer.properties = {**status, "status-description": "OK", "statusDescription": "OK"}
        if (request.properties or {}).get("operation") == "com.microsoft:renew-lock":
            tokens = request.body["lock-tokens"]
            until = self._renew(connection, address.removesuffix("/$management"))
            times = [int(until * 1000)] * len(getattr(tokens, "elements", tokens))
            answer.body = {"expirations": Array(UNDESCRIBED, Data.TIMESTAMP, *times)}
        for (path, target), link in self._replies.get(connection, {}).items():
            if path == address and request.reply_to in (None, target, path):
                link.send(answer)
                return

    def _renew(self, connection: Any, path: str) -> float:
        now = time.time()
        subscription: Subscription | None = self._namespace.subscriptions.get(path)
        holders = [link for link in self._readers.get(path, ()) if link.connection == connection]
        return max((subscription.renew(link, now) for link in holders), default=now) if subscription else now


def _address(link: Any) -> str:
    side = link.source if link.is_sender else link.target
    remote = link.remote_source if link.is_sender else link.remote_target
    return (side.address or remote.address or "").strip("/").lower()


def _decoded(raw: bytes) -> Message:
    message = Message()
    message.decode(raw)
    return message


def _encoded(stored: Stored, until: float) -> bytes:
    """The message as the service would send it, with its own annotations."""
    sent: Message = stored.message
    out = Message(body=sent.body, id=sent.id, subject=sent.subject, content_type=sent.content_type)
    out.inferred, out.properties, out.group_id = sent.inferred, sent.properties, sent.group_id
    out.correlation_id, out.delivery_count = sent.correlation_id, stored.count
    out.annotations = {
        symbol("x-opt-sequence-number"): stored.sequence,
        symbol("x-opt-enqueued-time"): timestamp(int(stored.enqueued_at * 1000)),
        symbol("x-opt-locked-until"): timestamp(int(until * 1000)),
    }
    return out.encode()


def _parts(raw: bytes) -> Iterator[bytes]:
    """The messages of a batch; a message that is none is its only part."""
    sections = list(_sections(raw))
    if len(sections) > 1 or (sections and sections[0][:2] == b"\x00\x53"):
        yield from sections
    else:
        yield raw


def _sections(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        data = Data()
        size = data.decode(raw[at:])
        if size <= 0:
            return
        at += size
        data.rewind()
        data.next()
        if data.type() == Data.DESCRIBED:
            data.enter()
            data.next()
            code = data.get_object()
            data.next()
            if int(code) == BATCH_SECTION:
                yield bytes(data.get_object())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="servicebus", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="of the interface to listen on")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--subscriptions", type=Path, required=True, help="Dapr's file of Subscriptions")
    parser.add_argument("--site", action="append", default=[], help="a device with an uplink; may be given again")
    parser.add_argument("--lock-seconds", type=float, default=LOCK_SECONDS)
    parser.add_argument("--max-delivery", type=int, default=MAX_DELIVERY)
    options = parser.parse_args(arguments)
    namespace = Namespace(options.lock_seconds, options.max_delivery)
    for topic, names in wanted(options.subscriptions, options.site).items():
        namespace.topics.setdefault(topic, Topic([]))
        for name in names:
            namespace.subscribe(topic, name)
    Container(ServiceBus(f"{options.host}:{options.port}", namespace)).run()


if __name__ == "__main__":
    main()
