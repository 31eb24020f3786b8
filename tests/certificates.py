"""Certificates for tests of TLS, made by the program openssl: an authority, and what it
has signed. Each file has a certificate and its key."""

from __future__ import annotations

import dataclasses
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

# Python 3.13 verifies strictly (RFC 5280): each certificate names its key and issuer.
CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = fdmux-tests
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = ${ENV::NAMES}
"""


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Files in PEM."""

    authority: Path
    server: Path  # of localhost and 127.0.0.1
    renewed: Path  # another one for the same names
    other: Path  # of other.example
    client: Path  # of client.example

    def server_context(self, chain: Path | None = None) -> ssl.SSLContext:
        """What a server uses, with a certificate of its own or ``server``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain or self.server)
        return context

    def client_context(self) -> ssl.SSLContext:
        """What a client uses; it trusts ``authority``."""
        return ssl.create_default_context(cafile=str(self.authority))


# A folder with all of them, for a machine without the program.
GIVEN = "FDMUX_TEST_CERTIFICATES"


def make_certificates(folder: Path) -> Certificates:
    """Write all of them into ``folder``, or take those of the folder `GIVEN`."""
    if GIVEN in os.environ:
        given = Path(os.environ[GIVEN])
        names = [field.name for field in dataclasses.fields(Certificates)]
        return Certificates(*(given / f"{name}.pem" for name in names))
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl (Debian: openssl)")
    config = folder / "openssl.cnf"
    config.write_text(CONFIG)
    authority = folder / "authority.pem"

    def issue(path: Path, names: str, *options: str | Path) -> Path:
        key = path.with_suffix(".key")
        command: list[str | Path] = [openssl, "req", "-x509", "-config", config]
        command += [
            "-days",
            "2",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        command += ["-keyout", key, "-out", path, *options]
        environment = {"NAMES": names}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        path.write_bytes(path.read_bytes() + key.read_bytes())
        return path

    issue(authority, "DNS:authority.example", "-extensions", "authority")
    signed: list[str | Path] = ["-extensions", "leaf", "-CA", authority]
    signed += ["-CAkey", authority.with_suffix(".key")]
    here = "DNS:localhost,IP:127.0.0.1"
    return Certificates(
        authority,
        issue(folder / "server.pem", here, *signed),
        issue(folder / "renewed.pem", here, *signed),
        issue(folder / "other.pem", "DNS:other.example", *signed),
        issue(folder / "client.pem", "DNS:client.example", *signed),
    )
