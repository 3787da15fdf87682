"""Tokens of an identity provider (OpenID Connect): a signed JWT, checked against the issuer's published keys."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import structlog

from services.runtime.access import RANK, Caller
from services.runtime.settings import RuntimeSettings

log = structlog.get_logger()

# Asymmetric alone: with HS256 among them, the published key would be a secret that everybody knows.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
PATIENCE = 10.0  # seconds between two looks at the issuer's keys, whoever asks with whatever key id
AGE = 3600.0  # seconds that keys are used without another look
LEEWAY = 30  # seconds that the clocks may be apart
NEEDED = ("exp", "iat", "iss", "aud", "sub")


class Oidc:
    """One issuer. Its keys are fetched when a key id is unknown, and again after an hour."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._keys: Mapping[str, Any] = {}
        self._looked = float("-inf")
        self._lock = asyncio.Lock()

    async def caller(self, token: str) -> Caller | None:
        """Who the token speaks for; None unless everything about it holds."""
        import jwt

        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._key(kid)
            if key is None or key.algorithm_name not in ALGORITHMS:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key's own: the token has no say in it
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=LEEWAY,
                options={"require": list(NEEDED)},
            )
        except jwt.PyJWTError as error:
            log.info("token refused", reason=type(error).__name__)
            return None
        return self._read(claims)

    def _read(self, claims: Mapping[str, Any]) -> Caller | None:
        """The highest of the roles that are known, and the projects; without one of them nobody comes in."""
        told, projects = claims.get(self._settings.oidc_role_claim), claims.get(self._settings.oidc_projects_claim)
        roles = [name for name in _list(told) if name in RANK]
        names = [name for name in _list(projects) if name]
        if not roles or not names:
            return None
        return Caller(claims["sub"], max(roles, key=lambda name: RANK[name]), tuple(names))  # type: ignore[arg-type]

    async def _key(self, kid: Any) -> Any | None:
        if not isinstance(kid, str):
            return None
        async with self._lock:
            since = time.monotonic() - self._looked
            if since > AGE or (kid not in self._keys and since > PATIENCE):
                await self._fetch()
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        """Read the keys; while the issuer is away, those that are known go on being used."""
        import jwt

        self._looked = time.monotonic()
        try:
            async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
                uri = self._settings.oidc_jwks or (await self._discovered(http))
                found = jwt.PyJWKSet.from_dict((await http.get(uri)).raise_for_status().json())
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            log.warning("the issuer's keys cannot be read", issuer=self._settings.oidc_issuer, reason=str(error))
            return
        self._keys = {key.key_id: key for key in found.keys if key.key_id and key.public_key_use in (None, "sig")}

    async def _discovered(self, http: httpx2.AsyncClient) -> str:
        where = f"{str(self._settings.oidc_issuer).rstrip('/')}/.well-known/openid-configuration"
        told = (await http.get(where)).raise_for_status().json()
        if told["issuer"] != self._settings.oidc_issuer:
            raise ValueError(f"{where} speaks of another issuer")
        return told["jwks_uri"]


def _list(told: Any) -> list[str]:
    """A claim is a text (words), or a list of texts."""
    rows = told.split() if isinstance(told, str) else told if isinstance(told, list) else []
    return [name for name in rows if isinstance(name, str)]
