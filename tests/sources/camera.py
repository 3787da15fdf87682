"""A stand-in of an ONVIF camera: it answers WS-Discovery over UDP multicast and the device and media services over
HTTP, both as the specifications say, and points to an RTSP stream. It wants a login, by HTTP digest or WS-Security."""

import base64
import hashlib
import re
import secrets
import socket
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from services.ingest.sources import xml
from services.ingest.sources.discovery import GROUP, PORT

MATCH = """<?xml version="1.0" encoding="utf-8"?><SOAP-ENV:Envelope
 xmlns:SOAP-ENV="http://www.w3.org/2003/05/soap-envelope" xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" xmlns:dn="http://www.onvif.org/ver10/network/wsdl">
<SOAP-ENV:Header><wsa:MessageID>urn:uuid:{own}</wsa:MessageID><wsa:RelatesTo>{relates}</wsa:RelatesTo>
<wsa:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/ProbeMatches</wsa:Action></SOAP-ENV:Header>
<SOAP-ENV:Body><d:ProbeMatches><d:ProbeMatch>
<wsa:EndpointReference><wsa:Address>{endpoint}</wsa:Address></wsa:EndpointReference>
<d:Types>dn:NetworkVideoTransmitter</d:Types><d:Scopes>onvif://www.onvif.org/name/{name} onvif://www.onvif.org/type/video_encoder
</d:Scopes><d:XAddrs>{address}</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion></d:ProbeMatch></d:ProbeMatches>
</SOAP-ENV:Body></SOAP-ENV:Envelope>"""
BODY = '<?xml version="1.0"?><e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body>{}</e:Body></e:Envelope>'
DATE = """<tds:GetSystemDateAndTimeResponse xmlns:tds="http://www.onvif.org/ver10/device/wsdl"
 xmlns:tt="http://www.onvif.org/ver10/schema"><tds:SystemDateAndTime><tt:UTCDateTime><tt:Time><tt:Hour>{0.hour}</tt:Hour>
<tt:Minute>{0.minute}</tt:Minute><tt:Second>{0.second}</tt:Second></tt:Time><tt:Date><tt:Year>{0.year}</tt:Year>
<tt:Month>{0.month}</tt:Month><tt:Day>{0.day}</tt:Day></tt:Date></tt:UTCDateTime></tds:SystemDateAndTime>
</tds:GetSystemDateAndTimeResponse>"""
CAPABILITIES = """<tds:GetCapabilitiesResponse xmlns:tds="http://www.onvif.org/ver10/device/wsdl"
 xmlns:tt="http://www.onvif.org/ver10/schema"><tds:Capabilities><tt:Media><tt:XAddr>http://192.168.1.64/onvif/media
</tt:XAddr></tt:Media></tds:Capabilities></tds:GetCapabilitiesResponse>"""
PROFILES = """<trt:GetProfilesResponse xmlns:trt="http://www.onvif.org/ver10/media/wsdl"
 xmlns:tt="http://www.onvif.org/ver10/schema"><trt:Profiles token="p1"><tt:Name>main</tt:Name></trt:Profiles>
<trt:Profiles token="p2"><tt:Name>sub</tt:Name></trt:Profiles></trt:GetProfilesResponse>"""
URI = """<trt:GetStreamUriResponse xmlns:trt="http://www.onvif.org/ver10/media/wsdl"
 xmlns:tt="http://www.onvif.org/ver10/schema">
<trt:MediaUri><tt:Uri>{}</tt:Uri></trt:MediaUri></trt:GetStreamUriResponse>"""
FAULT = """<e:Fault xmlns:ter="http://www.onvif.org/ver10/error"><e:Code><e:Value>e:Sender</e:Value><e:Subcode>
<e:Value>ter:NotAuthorized</e:Value></e:Subcode></e:Code><e:Reason><e:Text>Sender not authorized</e:Text></e:Reason>
</e:Fault>"""
USER, PASSWORD = "viewer", "pa ss:w@rd"


class Camera:
    """One camera on loopback, from `with` to the end of it."""

    def __init__(
        self, streams: dict[str, str], name: str = "gate", login: Literal["digest", "wsse"] = "digest"
    ) -> None:
        self.streams = streams  # by the profile's token
        self.name = name
        self.login = login
        self.endpoint = f"urn:uuid:{secrets.token_hex(16)}"
        self.asked: list[str] = []
        self.ahead = timedelta(hours=3)  # its clock is wrong, as many are
        self._nonce = secrets.token_hex(8)

    def __enter__(self) -> "Camera":
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"camera": self}))
        self.address = f"http://127.0.0.1:{self._http.server_port}/onvif/device_service"
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._udp.bind((GROUP, PORT))
        membership = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
        self._udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._udp.settimeout(0.1)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._http.serve_forever, self._answer_probes)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()
        self._udp.close()

    def _answer_probes(self) -> None:
        while not self._over.is_set():
            try:
                data, sender = self._udp.recvfrom(65536)
                root = xml.parsed(data)
            except (TimeoutError, ValueError):
                continue
            if "NetworkVideoTransmitter" not in (xml.text(root, "Types") or ""):
                continue
            self._udp.sendto(self.match(xml.text(root, "MessageID") or ""), sender)

    def match(self, relates: str) -> bytes:
        own = secrets.token_hex(16)
        parts = {"endpoint": self.endpoint, "name": self.name, "address": self.address}
        return MATCH.format(own=own, relates=relates, **parts).encode()

    def answer(self, body: bytes, authorization: str) -> tuple[int, str]:
        root = xml.parsed(body)
        (request,) = next(xml.all_of(root, "Body"))
        what = request.tag.rpartition("}")[2]
        self.asked.append(what)
        if what == "GetSystemDateAndTime":
            return 200, DATE.format(datetime.now(UTC) + self.ahead)
        if self.login == "digest" and not self._digest_fits(authorization):
            return 401, ""
        if self.login == "wsse" and not self._token_fits(root):
            return 400, FAULT
        if what == "GetStreamUri":
            return 200, URI.format(self.streams[xml.text(root, "ProfileToken") or ""])
        return 200, {"GetCapabilities": CAPABILITIES, "GetProfiles": PROFILES}[what]

    @property
    def challenge(self) -> str:
        return f'Digest realm="camera", nonce="{self._nonce}", qop="auth", algorithm=MD5'

    def _digest_fits(self, authorization: str) -> bool:
        """RFC 7616 with qop=auth and MD5, the one that cameras have."""
        given = {
            name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', authorization)
        }
        if given.get("nonce") != self._nonce or given.get("username") != USER:
            return False
        first = _md5(f"{USER}:camera:{PASSWORD}")
        second = _md5(f"POST:{given['uri']}")
        return given["response"] == _md5(f"{first}:{self._nonce}:{given['nc']}:{given['cnonce']}:auth:{second}")

    def _token_fits(self, root: object) -> bool:
        """WS-Security UsernameToken profile 1.0; the camera goes by its own clock."""
        header = {name: xml.text(root, name) or "" for name in ("Username", "Password", "Nonce", "Created")}  # type: ignore[arg-type]
        if header["Username"] != USER or not header["Created"]:
            return False
        created = datetime.fromisoformat(header["Created"].replace("Z", "+00:00"))
        if abs(created - datetime.now(UTC) - self.ahead) > timedelta(seconds=30):
            return False
        raw = base64.b64decode(header["Nonce"]) + header["Created"].encode() + PASSWORD.encode()
        return base64.b64encode(hashlib.sha1(raw).digest()).decode() == header["Password"]


class _Handler(BaseHTTPRequestHandler):
    camera: Camera
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, answer = self.camera.answer(body, self.headers.get("authorization", ""))
        content = BODY.format(answer).encode() if answer else b""
        self.send_response(status)
        if status == 401:
            self.send_header("www-authenticate", self.camera.challenge)
        self.send_header("content-type", "application/soap+xml")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
