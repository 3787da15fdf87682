"""Tokens: made, listed and revoked by the command, taken from an identity provider, and how often they may ask."""

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from conftest import Running, started
from cryptography.hazmat.primitives import serialization
from issuer import Issuer, issuing
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.tokens import Grant, TokensFile
from services.portal.app import create
from services.runtime import oidc
from services.runtime.limits import MOST, Limits

START = datetime(2026, 1, 1, tzinfo=UTC)


async def me(running: Running, token: str) -> Any:
    return await running.client.get("/v1/me", headers={"authorization": f"Bearer {token}"})


def command(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["token", *arguments, "--home", str(home)])


def test_the_command_makes_lists_and_revokes_tokens_and_keeps_none(tmp_path: Path) -> None:
    made = command(tmp_path, "create", "ann", "--role", "annotator", "-p", "shapes", "--days", "7", "--rate", "5")
    assert made.exit_code == 0, made.output
    token = made.output.strip()
    rows = orjson.loads(command(tmp_path, "list", "--json").output)
    row = next(row for row in rows if row["subject"] == "ann")
    assert (row["role"], row["projects"], row["rate"]) == ("annotator", ["shapes"], 5.0)
    assert {one["subject"] for one in rows} == {"operator", "ann"}, "the operator's stays"
    assert all(token.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0
    assert command(tmp_path, "create", "bob", "--role", "king").exit_code == 2
    assert command(tmp_path, "revoke", row["sha256"]).exit_code == 0
    assert [one["subject"] for one in orjson.loads(command(tmp_path, "list", "--json").output)] == ["operator"]
    assert command(tmp_path, "revoke", "ann").exit_code == 1


async def test_a_token_counts_at_once_until_it_is_revoked_or_over(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        file = TokensFile(tmp_path / "tokens.json")
        token = file.make(Grant("ann", "reviewer", ["shapes"], START + timedelta(days=1)), START)
        answer = await me(running, token)
        assert (answer.status_code, answer.json()["role"], answer.json()["projects"]) == (200, "reviewer", ["shapes"])
        running.clock.step(86_400)
        assert (await me(running, token)).status_code == 401
        other = file.make(Grant("bob", "viewer", ["shapes"]), START)
        assert (await me(running, other)).status_code == 200
        file.revoke("bob")
        assert (await me(running, other)).status_code == 401


@pytest.mark.parametrize("wrong", ["", "{", '{"tokens": [{}]}', '{"tokens": "x"}', "king", "no zone"])
async def test_a_broken_file_of_tokens_is_not_taken_and_the_one_before_stays(tmp_path: Path, wrong: str) -> None:
    async with started(create, tmp_path) as running:
        path = tmp_path / "tokens.json"
        file = TokensFile(path)
        token = file.make(Grant("ann", "viewer", ["*"]), START)
        assert (await me(running, token)).status_code == 200
        good = path.read_text()
        edited = {
            "king": good.replace('"viewer"', '"king"'),
            "no zone": good.replace('"subject"', '"expires_at": "2027-01-01T00:00:00", "subject"'),
        }
        path.write_text(edited.get(wrong, wrong))
        assert (await me(running, token)).status_code == 200
        assert (await me(running, "unknown")).status_code == 401
        path.write_text(good)
        file.revoke("ann")
        assert (await me(running, token)).status_code == 401


async def test_a_token_that_asks_too_often_waits_and_others_do_not(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        file = TokensFile(tmp_path / "tokens.json")
        ann = file.make(Grant("ann", "viewer", ["*"], rate=0.5), START)
        bob = file.make(Grant("ann", "viewer", ["*"]), START)
        assert (await me(running, ann)).status_code == 200
        refused = await me(running, ann)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert refused.json()["type"].endswith("too-many-requests")
        assert (await me(running, bob)).status_code == 200
        running.clock.step(2)
        assert (await me(running, ann)).status_code == 200


async def test_all_tokens_may_be_given_a_rate(tmp_path: Path) -> None:
    async with started(create, tmp_path, rate=2) as running:
        told = [(await running.call("GET", "/v1/me", "viewer")).status_code for _ in range(6)]
        assert told == [200] * 4 + [429] * 2, "two seconds' worth may come at once"


def test_forgotten_buckets_are_bounded_and_time_that_goes_back_gives_nothing() -> None:
    limits = Limits()
    for number in range(MOST + 10):
        assert limits.take(f"token-{number}", 1.0, START) == 0
    assert len(limits._buckets) == MOST
    assert [limits.take("x", 0.5, START - timedelta(days=n)) for n in range(3)] == [0.0, 2.0, 2.0]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as one:
        yield one


@pytest.mark.parametrize("kid", ["rsa-1", "ec-1"])
async def test_a_providers_token_is_taken_with_its_role_and_projects(issuer: Issuer, tmp_path: Path, kid: str) -> None:
    async with started(create, tmp_path, oidc_issuer=issuer.url) as running:
        answer = await me(running, issuer.token(kid, halfsure_role=["viewer", "reviewer", "emperor"]))
        assert answer.status_code == 200, answer.text
        assert (answer.json()["subject"], answer.json()["role"]) == ("ann", "reviewer")
        assert answer.json()["projects"] == ["default"]
        assert (await running.call("GET", "/v1/me", "viewer")).status_code == 200, "those of the file hold too"
        before = issuer.asked
        assert (await me(running, issuer.token(kid))).status_code == 200
        assert issuer.asked == before, "keys are remembered"


def _unsigned(issuer: Issuer) -> str:
    return jwt.encode(issuer.claims(), None, algorithm="none", headers={"kid": "rsa-1"})


def _confused(issuer: Issuer) -> str:
    """HS256 under the public key, which everybody knows; put together by hand, since PyJWT refuses to."""
    import hashlib
    import hmac

    parts = [{"alg": "HS256", "kid": "rsa-1", "typ": "JWT"}, issuer.claims()]
    text = b".".join(base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=") for part in parts)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = issuer.keys["rsa-1"].public_key().public_bytes(serialization.Encoding.PEM, form)
    sign = base64.urlsafe_b64encode(hmac.new(key, text, hashlib.sha256).digest()).rstrip(b"=")
    return (text + b"." + sign).decode()


BAD = {
    "unsigned": _unsigned,
    "signed by the public key": _confused,
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 60, iat=int(time.time()) - 600),
    "for another audience": lambda issuer: issuer.token(aud="somebody"),
    "of another issuer": lambda issuer: issuer.token(iss="https://elsewhere.example"),
    "not yet valid": lambda issuer: issuer.token(nbf=int(time.time()) + 600),
    "of an unknown key": lambda issuer: issuer.token("rsa-2"),
    "under another's key id": lambda issuer: jwt.encode(
        issuer.claims(), issuer.keys["rsa-2"], algorithm="RS256", headers={"kid": "rsa-1"}
    ),
    "without a key id": lambda issuer: jwt.encode(issuer.claims(), issuer.keys["rsa-1"], algorithm="RS256"),
    "a key id of odd type": lambda issuer: ".".join(
        [base64.urlsafe_b64encode(b'{"alg":"RS256","kid":["rsa-1"]}').decode(), *issuer.token().split(".")[1:]]
    ),
    "changed": lambda issuer: issuer.token()[:-8] + "AAAAAAAA",
    "without an end": lambda issuer: jwt.encode(
        {k: v for k, v in issuer.claims().items() if k != "exp"},
        issuer.keys["rsa-1"],
        algorithm="RS256",
        headers={"kid": "rsa-1"},
    ),
    "without a known role": lambda issuer: issuer.token(halfsure_role="emperor"),
    "without projects": lambda issuer: issuer.token(halfsure_projects=[]),
    "no token at all": lambda issuer: "a.b.c",
    "not of ASCII": lambda issuer: "é.é.é".encode().decode("latin-1"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_token_that_does_not_hold_is_refused(issuer: Issuer, tmp_path: Path, what: str) -> None:
    async with started(create, tmp_path, oidc_issuer=issuer.url) as running:
        assert (await me(running, issuer.token())).status_code == 200
        answer = await running.client.get("/v1/me", headers={b"authorization": f"Bearer {BAD[what](issuer)}".encode()})
        assert answer.status_code == 401, answer.text
        assert "Bearer" in answer.headers["www-authenticate"]


async def test_new_keys_are_found_and_unknown_ones_do_not_wear_the_issuer_out(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(create, tmp_path, oidc_issuer=issuer.url) as running:
        for _ in range(20):
            assert (await me(running, issuer.token("rsa-2"))).status_code == 401
        assert issuer.asked == 2, "its discovery document and its keys, once in ten seconds"
        issuer.published = ["rsa-2"]
        monkeypatch.setattr(oidc, "PATIENCE", 0.0)
        assert (await me(running, issuer.token("rsa-2"))).status_code == 200


async def test_an_issuer_that_is_away_lets_nobody_in_and_breaks_nothing(tmp_path: Path) -> None:
    with issuing() as issuer:
        token = issuer.token()
    async with started(create, tmp_path, oidc_issuer=issuer.url) as running:
        assert (await me(running, token)).status_code == 401
        assert (await running.call("GET", "/v1/me", "viewer")).status_code == 200
