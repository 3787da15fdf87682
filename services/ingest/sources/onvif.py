"""An ONVIF camera: found by WS-Discovery, asked for the address of its stream, and then read as RTSP.

Four questions of ONVIF's device and media services (Profile S), for which the client libraries load a hundred schemas:
GetSystemDateAndTime, GetCapabilities, GetProfiles, GetStreamUri.
"""

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

import httpx2

from services.ingest.sources import xml
from services.ingest.sources.config import Onvif
from services.ingest.sources.discovery import Device, probe
from services.ingest.sources.door import Door, Trouble

DEVICE, MEDIA = "http://www.onvif.org/ver10/device/wsdl", "http://www.onvif.org/ver10/media/wsdl"
_WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
    "<s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
)


async def run(source: Onvif, door: Door) -> None:
    """Find the camera and read its stream until it is lost; then it may have another address."""
    from services.ingest.sources.rtsp import stream  # with it comes FFmpeg, which finding a camera can do without

    await stream(source, await stream_address(source), door)


async def stream_address(source: Onvif) -> str:
    """The camera's RTSP address. Raises Trouble."""
    try:
        service = source.url or (await found(source)).addresses[0]
        return await Camera(service, source.username, source.password, source.timeout_seconds).stream(source.profile)
    except OSError as error:
        raise Trouble(f"{error.strerror or error}: {error.filename or source.place}") from None


async def found(source: Onvif) -> Device:
    """The one device that is meant. Raises Trouble, which names those that answered."""
    devices = await probe(source.search_seconds, source.interface, source.endpoint)
    meant = [
        device
        for device in devices
        if source.endpoint in (None, device.endpoint)
        and (source.scope is None or any(source.scope in scope for scope in device.scopes))
    ]
    if len(meant) == 1:
        return meant[0]
    if not devices:
        raise Trouble(f"no camera has answered within {source.search_seconds:.0f} s; `url` asks one without a search")
    answered = "; ".join(map(str, (meant or devices)[:20]))
    if meant:
        raise Trouble(f"{len(meant)} cameras are meant; name one by `endpoint`: {answered}")
    raise Trouble(f"{source.place} has not answered; these have: {answered}")


class Camera:
    """The services of one device."""

    def __init__(self, service: str, username: str | None, password: str | None, timeout: float) -> None:
        self._service = service
        self._login = (username, password) if username is not None and password is not None else None
        self._timeout = timeout
        self._ahead = timedelta()  # its clock, ahead of ours: a login is valid at its time only

    async def stream(self, profile: str | None) -> str:
        """The address of the profile's stream: its token or name, or the first. Raises Trouble."""
        # Some cameras want the login in the message, some by HTTP digest: each finds what it looks for.
        auth = httpx2.DigestAuth(*self._login) if self._login else None
        try:
            async with httpx2.AsyncClient(auth=auth, timeout=self._timeout, trust_env=False) as client:
                return await self._stream(client, profile)
        except httpx2.HTTPError as error:
            raise Trouble(f"{self._service}: {str(error) or type(error).__name__}") from None

    async def _stream(self, client: httpx2.AsyncClient, profile: str | None) -> str:
        await self._set_clock(client)
        body = f'<GetCapabilities xmlns="{DEVICE}"><Category>Media</Category></GetCapabilities>'
        capabilities = await self._ask(client, self._service, body)
        media = next(xml.all_of(capabilities, "Media"), None)
        address = xml.text(media, "XAddr") if media is not None else None
        if address is None:
            raise Trouble(f"{self._service} has no media service of ONVIF version 1")
        address = _at(self._service, address)
        profiles = list(xml.all_of(await self._ask(client, address, f'<GetProfiles xmlns="{MEDIA}"/>'), "Profiles"))
        token = _chosen(profiles, profile)
        body = (
            f'<GetStreamUri xmlns="{MEDIA}"><StreamSetup><Stream xmlns="http://www.onvif.org/ver10/schema">RTP-Unicast'
            '</Stream><Transport xmlns="http://www.onvif.org/ver10/schema"><Protocol>RTSP</Protocol></Transport>'
            f"</StreamSetup><ProfileToken>{escape(token)}</ProfileToken></GetStreamUri>"
        )
        uri = xml.text(await self._ask(client, address, body), "Uri") or ""
        if urlsplit(uri).scheme not in ("rtsp", "rtsps"):
            raise Trouble(f"{self._service} names {uri[:200]!r} as its stream, which is no RTSP address")
        return uri

    async def _set_clock(self, client: httpx2.AsyncClient) -> None:
        """Learn the camera's time, which it tells everybody; one that does not is taken to be right."""
        body = f'<GetSystemDateAndTime xmlns="{DEVICE}"/>'
        utc = next(xml.all_of(await self._ask(client, self._service, body, login=False), "UTCDateTime"), None)
        if utc is None:
            return
        parts = [int(xml.text(utc, part) or 0) for part in ("Year", "Month", "Day", "Hour", "Minute", "Second")]
        try:
            self._ahead = datetime(*parts, tzinfo=UTC) - datetime.now(UTC)  # type: ignore[misc]
        except ValueError:
            return

    async def _ask(self, client: httpx2.AsyncClient, address: str, body: str, *, login: bool = True) -> Element:
        header = self._token() if login and self._login else ""
        answer = await client.post(
            address,
            content=_ENVELOPE.format(header=header, body=body).encode(),
            headers={"content-type": "application/soap+xml; charset=utf-8"},
        )
        if answer.status_code in (401, 403):
            wants = "refuses user and password" if self._login else "wants username and password_file"
            raise Trouble(f"{address} {wants}")
        try:
            root = xml.parsed(answer.content)
        except ValueError as error:
            raise Trouble(f"{address} answers {answer.status_code}: {error}") from None
        if next(xml.all_of(root, "Fault"), None) is not None:
            codes = " ".join(code.text or "" for code in xml.all_of(root, "Value"))
            why = xml.text(root, "Text") or codes
            raise Trouble(f"{address} {'refuses user and password' if 'NotAuthorized' in codes else 'answers'}: {why}")
        return root

    def _token(self) -> str:
        """WS-Security UsernameToken with a digest: base64(sha1(nonce + time + password))."""
        username, password = self._login or ("", "")
        nonce = os.urandom(16)
        created = (datetime.now(UTC) + self._ahead).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha1(nonce + created.encode() + password.encode(), usedforsecurity=False).digest()
        secret = base64.b64encode(digest).decode()
        kind = quoteattr(f"{_WSSE}username-token-profile-1.0#PasswordDigest")
        return (
            f'<Security s:mustUnderstand="1" xmlns="{_WSSE}wssecurity-secext-1.0.xsd"><UsernameToken>'
            f"<Username>{escape(username)}</Username><Password Type={kind}>{secret}</Password>"
            f"<Nonce>{base64.b64encode(nonce).decode()}</Nonce>"
            f'<Created xmlns="{_WSSE}wssecurity-utility-1.0.xsd">{created}</Created></UsernameToken></Security>'
        )


def _chosen(profiles: list[Element], wanted: str | None) -> str:
    """The token of the profile. Raises Trouble."""
    named = {token: xml.text(profile, "Name") for profile in profiles if (token := profile.get("token"))}
    for token, name in named.items():
        if wanted in (None, token, name):
            return token
    offered = ", ".join(f"{token} ({name})" for token, name in named.items()) or "none at all"
    raise Trouble(f"the camera has no media profile {wanted or ''}; it has {offered}")


def _at(service: str, address: str) -> str:
    """A service's address where its device was reached: behind a router a camera names one that is its own only."""
    reached, said = urlsplit(service), urlsplit(address)
    return urlunsplit(said._replace(scheme=reached.scheme, netloc=reached.netloc))
