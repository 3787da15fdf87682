"""WS-Discovery: which ONVIF devices are in a network. Sans-IO but for `probe`.

OASIS WS-Discovery (April 2005), as the ONVIF core specification has it: a Probe by UDP multicast, ProbeMatches by
unicast. The libraries for it bring threads and listen on all interfaces; this is one message and its answers.
"""

import asyncio
import socket
import uuid
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import unquote, urlsplit

from services.ingest.sources import xml

GROUP, PORT = "239.255.255.250", 3702
MOST = 1000  # answers that are looked at
SCOPES = "onvif://www.onvif.org/"

_PROBE = """<?xml version="1.0" encoding="UTF-8"?>
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
 xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"
 xmlns:n="http://www.onvif.org/ver10/network/wsdl"><s:Header>
<a:MessageID>{message}</a:MessageID><a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>
<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action></s:Header>
<s:Body><d:Probe><d:Types>n:NetworkVideoTransmitter</d:Types></d:Probe></s:Body></s:Envelope>"""


@dataclass(frozen=True)
class Device:
    """A device as it announces itself: who it is, where its device service is, what it says of itself."""

    endpoint: str
    addresses: tuple[str, ...]
    scopes: tuple[str, ...]

    def __str__(self) -> str:
        names = [unquote(scope.rpartition("/")[2]) for scope in self.scopes if scope.startswith(f"{SCOPES}name/")]
        return f"{self.endpoint} ({', '.join([*names, *self.addresses])})"


def probe_message(message: str) -> bytes:
    """A Probe for video transmitters; `message` is its urn."""
    return _PROBE.format(message=message).encode()


def matches(answer: bytes, message: str) -> list[Device]:
    """The devices in an answer to this Probe; none where it is another's, or no such answer at all."""
    try:
        root = xml.parsed(answer)
    except ValueError:
        return []
    if xml.text(root, "RelatesTo") != message:
        return []
    found = []
    for match in xml.all_of(root, "ProbeMatch"):
        addresses = [
            address
            for address in (xml.text(match, "XAddrs") or "").split()
            if urlsplit(address).scheme in ("http", "https")
        ]
        reference = next(xml.all_of(match, "EndpointReference"), None)
        endpoint = xml.text(reference, "Address") if reference is not None else None
        if endpoint and addresses:
            found.append(Device(endpoint, tuple(addresses), tuple((xml.text(match, "Scopes") or "").split())))
    return found


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, message: str) -> None:
        self._message = message
        self._left = MOST
        self.devices: dict[str, Device] = {}

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._left -= 1
        if self._left >= 0:
            self.devices |= {device.endpoint: device for device in matches(data, self._message)}


async def probe(seconds: float, interface: IPv4Address | None = None, endpoint: str | None = None) -> list[Device]:
    """The devices that answer within so many seconds, each once; ends early when `endpoint` has. Raises OSError."""
    message = f"urn:uuid:{uuid.uuid4()}"
    loop = asyncio.get_running_loop()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setblocking(False)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    if interface is not None:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface.packed)
    sender.bind((str(interface or "0.0.0.0"), 0))
    transport, answers = await loop.create_datagram_endpoint(lambda: _Answers(message), sock=sender)
    try:
        until = loop.time() + seconds
        # Said twice, since a datagram may be lost; a device may wait half a second before it answers.
        again = loop.time() + seconds / 3
        transport.sendto(probe_message(message), (GROUP, PORT))
        while loop.time() < until and endpoint not in answers.devices:
            await asyncio.sleep(0.05)
            if again and loop.time() > again:
                again = 0.0
                transport.sendto(probe_message(message), (GROUP, PORT))
    finally:
        transport.close()
    return sorted(answers.devices.values(), key=lambda device: device.endpoint)
