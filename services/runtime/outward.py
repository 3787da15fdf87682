"""Where a message that leaves may go: to the address that is written down, never to one that a name is made to lead to.

A name is looked up once, what it leads to is judged, and that very address is connected to: a name whose answer changes
between the look and the connection (DNS rebinding) gains nothing. Addresses of one link, where clouds keep their
metadata and credentials, are never gone to.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit, urlunsplit

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Inward(ValueError):
    """The address is not one that a message may go to."""


@dataclass(frozen=True)
class Target:
    """A URL with the address in the name's place, and what makes the server see the name: Host, and SNI for TLS."""

    url: str
    headers: dict[str, str]
    extensions: dict[str, str]


async def resolved(host: str, port: int) -> Sequence[str]:
    """The addresses of a name. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in found]


async def pinned(url: str, *, inside: bool = False, resolve: Resolve = resolved) -> Target:
    """Where `url` leads to now. Raises Inward, and OSError for a name that nobody knows.

    A name may lead into a private network, or to this machine, only with `inside`; an address that is written down as
    such, or `localhost`, may be any but one of the link.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    written = _literal(host)
    found = [written] if written else [_literal(text) for text in await resolve(host, port)]
    anywhere = inside or written is not None or host == "localhost"
    for address in found:
        if address is None or _never(address) or not (anywhere or address.is_global):
            raise Inward(f"{host} leads to {address}, which is no place for messages")
    if not found or found[0] is None:
        raise Inward(f"{host} leads nowhere")
    text = f"[{found[0]}]" if found[0].version == 6 else str(found[0])
    to = urlunsplit(parts._replace(netloc=f"{text}:{port}"))
    return Target(to, {"host": parts.netloc.rpartition("@")[2]}, {"sni_hostname": host})


def _literal(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _never(address: Address) -> bool:
    metadata = str(address) == "fd00:ec2::254"  # AWS's by IPv6, the one that is not of the link
    return address.is_link_local or address.is_multicast or address.is_unspecified or metadata
