"""What looks like a credential never reaches a log, and what does not is left alone."""

import pytest

from services.runtime.scrubbing import MASK, scrub

SECRET = "s3cr3t-VALUE/+=="


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer {}",
        "headers: {{'authorization': 'Bearer {}', 'accept': 'a'}}",
        '{{\\"dapr-api-token\\": \\"{}\\"}}',
        "(b'dapr-api-token', b'{}')",
        "GET https://store.example/c?sv=1&sig={}&se=2",
        "redis://user:{}@10.0.0.1:6379/0",
        "Endpoint=sb://x.example/;SharedAccessKeyName=a;SharedAccessKey={}",
        "DefaultEndpointsProtocol=https;AccountKey={};EndpointSuffix=x",
        "/label?token={}&project=p",
        "password={}",
        '"api_key": "{}"',
        "access_token={}",
    ],
)
def test_a_credential_is_masked(line: str) -> None:
    secret = SECRET.replace("/", "_") if "@" in line else SECRET
    told = scrub(line.format(secret))
    assert secret not in told
    assert "s3cr3t" not in told
    assert MASK in told


def test_a_signed_token_is_masked_wherever_it_stands() -> None:
    assert scrub("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln here") == f"got {MASK} here"


@pytest.mark.parametrize(
    "line",
    [
        "there is no token of 'ann'; `halfsure token list` shows them",
        "GET http://127.0.0.1:8080/v1/samples?limit=5",
        "token refused",
        "sample smp_abc of project p, trace 0af7651916cd43dd8448eb211c80319c",
        "signature does not fit",
    ],
)
def test_what_is_no_credential_is_left_alone(line: str) -> None:
    assert scrub(line) == line
