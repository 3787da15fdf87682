"""Messages are believed that were signed with the secret, and lately."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from services.contracts.signatures import ID, SIGNATURE, TIMESTAMP, BadSignature, key_of, signed, verified

# What the specification's reference library (standardwebhooks 1.0 for Python) makes of the same.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw"
MESSAGE, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'
THEN = datetime.fromtimestamp(1614265330, UTC)
KEY = key_of(SECRET)


def test_a_message_is_signed_as_the_reference_library_does() -> None:
    headers = signed(KEY, MESSAGE, THEN, BODY)
    signature = "v1,q6KMVIJHk4Gs770FfR5f591Ftx7uVJSGl5wHV1ri978="
    assert headers == {ID: MESSAGE, TIMESTAMP: "1614265330", SIGNATURE: signature}
    assert verified(KEY, headers, BODY, THEN) == MESSAGE


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_what_is_old_or_from_the_future_is_refused(seconds: int) -> None:
    headers = signed(KEY, MESSAGE, THEN, BODY)
    with pytest.raises(BadSignature):
        verified(KEY, headers, BODY, THEN + timedelta(seconds=seconds))
    assert verified(KEY, headers, BODY, THEN + timedelta(seconds=299))


@pytest.mark.parametrize(
    "change",
    [
        {SIGNATURE: "v1,AAAA"},
        {SIGNATURE: ""},
        {SIGNATURE: "v1a," + signed(KEY, MESSAGE, THEN, BODY)[SIGNATURE][3:]},
        {SIGNATURE: "v1,äöü"},
        {ID: "another"},
        {ID: ""},
        {ID: "x" * 300},
        {TIMESTAMP: "1614265331"},
        {TIMESTAMP: "now"},
        {TIMESTAMP: "²"},
        {TIMESTAMP: "9" * 400},
    ],
)
def test_what_was_changed_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(BadSignature):
        verified(KEY, {**signed(KEY, MESSAGE, THEN, BODY), **change}, BODY, THEN)
    with pytest.raises(BadSignature):
        verified(KEY, signed(KEY, MESSAGE, THEN, BODY), BODY + b" ", THEN)


def test_one_of_several_signatures_is_enough() -> None:
    old, new = signed(b"o" * 24, MESSAGE, THEN, BODY), signed(KEY, MESSAGE, THEN, BODY)
    both = {**new, SIGNATURE: f"{old[SIGNATURE]} {new[SIGNATURE]}"}
    assert verified(KEY, both, BODY, THEN) == MESSAGE


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_?", base64.b64encode(b"x" * 32).decode()])
def test_a_weak_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        key_of(secret)
