"""``fdmux echo`` with a certificate, which SIGHUP reads again."""

from __future__ import annotations

import shutil
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.python.commands.test_cli_echo import HOST, LONG, echo, read_port

from fdmux.sockets.connect import connect_with_timeout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates

# The environment tells the server, a process of its own, which way.
pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.slow]


def served_certificate(port: int, certificates: Certificates) -> str:
    """Talk to the server; returns its certificate."""
    context = certificates.client_context()
    with connect_with_timeout(HOST, port, LONG, ssl=context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        sock.unwrap().close()
    return ssl.DER_cert_to_PEM_cert(certificate)


def test_hangup_reads_the_certificate_again(
    certificates: Certificates, tmp_path: Path
) -> None:
    used = tmp_path / "used.pem"
    shutil.copy(certificates.server, used)
    with echo("--port", "0", "--tls-cert", str(used)) as process:
        port = read_port(process.stdout)
        assert served_certificate(port, certificates) in certificates.server.read_text()
        used.write_text("no certificate")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        complaint = process.stderr.readline()
        assert complaint.startswith(f"fdmux: read the certificate from {used}: ")
        assert complaint.endswith("; the old one stays in use\n")
        assert served_certificate(port, certificates) in certificates.server.read_text()
        shutil.copy(certificates.renewed, used)
        process.send_signal(signal.SIGHUP)
        renewed = certificates.renewed.read_text()
        while served_certificate(port, certificates) not in renewed:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert out.endswith(" 0 errors\n")


def test_key_in_a_file_of_its_own(certificates: Certificates, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    text = certificates.server.read_text()
    end = "-----END CERTIFICATE-----\n"
    chain.write_text(text[: text.index(end) + len(end)])
    key = certificates.server.with_suffix(".key")
    arguments = ["--tls-cert", str(chain), "--tls-key", str(key)]
    with echo("--port", "0", *arguments) as process:
        served_certificate(read_port(process.stdout), certificates)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONG)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--tls-cert", "/nonexistent.pem"],
            "read the certificate from /nonexistent.pem: No such file or directory",
        ),
        (["--tls-key", "/nonexistent.pem"], "--tls-key needs --tls-cert"),
    ],
)
def test_what_cannot_be_read_is_named(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "fdmux", "echo", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"fdmux: {message}\n"
