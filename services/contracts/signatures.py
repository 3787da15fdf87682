"""Signed messages by the Standard Webhooks specification (standardwebhooks.com), symmetric signatures. Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = 300
"""Seconds by which a message's time may differ from ours."""
LONGEST_ID = 200


class BadSignature(Exception):
    """The message is not from whoever shares the secret, or not from now."""


def key_of(secret: str) -> bytes:
    """The key in a secret `whsec_<base64 of 24 to 64 bytes>`. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the secret is not whsec_ and base64: {error}") from error
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("a secret is whsec_ and base64 of 24 to 64 random bytes")
    return key


def signed(key: bytes, message: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message with this id; the same message sent again has the same id."""
    timestamp = int(at.timestamp())
    signature = f"v1,{_signature(key, message, timestamp, body)}"
    return {ID: message, TIMESTAMP: str(timestamp), SIGNATURE: signature}


def verified(key: bytes, headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """The id of a message that is what its headers say; whether it came before is for others. Raises BadSignature."""
    message, stamp, given = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not message or len(message) > LONGEST_ID or not stamp.isascii() or not stamp.isdecimal() or len(stamp) > 12:
        raise BadSignature(f"the headers {ID}, {TIMESTAMP} and {SIGNATURE} are needed")
    if abs(now.timestamp() - int(stamp)) > TOLERANCE:
        raise BadSignature(f"the message is more than {TOLERANCE} s old, or from the future")
    expected = _signature(key, message, int(stamp), body).encode()
    # A sender that changes its secret signs with both, so there may be several.
    offered = [part[3:].encode() for part in given.split() if part.startswith("v1,")]
    if not any([hmac.compare_digest(expected, one) for one in offered]):
        raise BadSignature("no signature fits")
    return message


def _signature(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    content = f"{message}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
