"""The certificate authority of a stack whose sidecars speak mTLS: a root, and an issuer that Dapr's sentry signs with.

Sentry on one machine signs for whoever asks on loopback: it keeps what is said between sidecars from being read or
changed, and tells apps apart as long as nobody on the machine lies about who they are.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.cli.home import write_private

ROOT, ISSUER, KEY = "ca.crt", "issuer.crt", "issuer.key"
YEARS = 10


def anchors(folder: Path) -> str:
    """The root certificate as PEM; made at first use, with the issuer's, and its key then thrown away."""
    if not (folder / ROOT).exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in _made().items():
            write_private(folder / name, text)
    return (folder / ROOT).read_text()


def control_flags(folder: Path, sentry: str) -> tuple[str, ...]:
    """For placement and scheduler: that they speak mTLS, and who signs for them."""
    return ("--tls-enabled", "--sentry-address", sentry, "--trust-anchors-file", str(folder / ROOT))


def _made() -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    root, issuer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    key = issuer.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    pem = {
        ISSUER: _certificate("halfsure issuer", issuer.public_key(), "halfsure root", root),
        KEY: key,
        ROOT: _certificate("halfsure root", root.public_key(), "halfsure root", root),
    }
    return {name: text.decode() for name, text in pem.items()}


def _certificate(name: str, public: Any, by: str, key: Any) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    now, own = datetime.now(UTC), [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]
    usage = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement", "key_encipherment"), False)
    usage |= {"digital_signature": False, "encipher_only": False, "decipher_only": False}
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(own))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, by)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)
