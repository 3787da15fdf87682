"""Models are signed by the registry and verified before they are loaded: Ed25519 over project and manifest.

The manifest has the hash of the artefact in it, so the one signature is of both; the project keeps a model of one from
being passed off as another's. Keys are PEM files: PKCS #8 for the private one, SubjectPublicKeyInfo for public ones, of
which a file may have several, so that a key can be replaced.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.contracts.events import Content, SignedContent

KEY_SETTINGS = {"retrain-trigger": "HALFSURE_RETRAIN_TRIGGER_MODEL_KEY", "infer": "HALFSURE_INFER_MODEL_KEYS"}
"""The setting by which whoever signs, and whoever verifies, is told its file."""
PURPOSE = b"halfsure model v1"
PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)


class NotTrusted(Exception):
    """No key that is trusted here has signed this."""


def make_keys() -> tuple[bytes, bytes]:
    """A new private key and its public one, as PEM."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return private, public


class Signer:
    """Signs for whoever says that there is a model; without a key it leaves what it is given as it is."""

    def __init__(self, path: Path | None) -> None:
        """Raises ValueError for what is no Ed25519 private key."""
        self._key: Any = None if path is None else _private(path)

    def signed(self, project: str, manifest: Content) -> SignedContent:
        """The same manifest's claim, signed. The same key makes the same signature."""
        given = SignedContent.model_validate(manifest.model_dump())
        if self._key is None:
            return given
        signature = base64.b64encode(self._key.sign(_message(project, manifest))).decode()
        return given.model_copy(update={"signature": signature})


class Verifier:
    """Knows the keys that models are trusted by; without any it trusts everything."""

    def __init__(self, path: Path | None) -> None:
        """Raises ValueError for a file without a public key."""
        self._keys: Sequence[Any] = () if path is None else _public(path)

    def check(self, project: str, manifest: SignedContent) -> None:
        """Raises NotTrusted."""
        if not self._keys:
            return
        if manifest.signature is None:
            raise NotTrusted("it is not signed, and this service loads only models that are")
        if not any(_fits(key, manifest.signature, _message(project, manifest)) for key in self._keys):
            raise NotTrusted("no key that this service trusts has signed it")


def _message(project: str, manifest: Content) -> bytes:
    return b"\n".join((PURPOSE, project.encode(), manifest.sha256.encode()))


def _fits(key: Any, signature: str, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _private(path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 private key")
    return key


def _public(path: Path) -> list[Any]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys = [load_pem_public_key(part) for part in PEM.findall(path.read_bytes())]
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise ValueError(f"{path} has no Ed25519 public key, or another one")
    return keys
