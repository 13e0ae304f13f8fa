"""Files that are certificates and keys, and files that are something else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qanat.relay import certificate_files
from qanat.relay.certificate_files import CertificateFiles

__all__: list[str] = []

CERT = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates")


@pytest.fixture
def files() -> CertificateFiles:
    return CertificateFiles()


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def issued(folder: Path, name: str) -> tuple[str, str]:
    """A certificate that is its own authority, and its key."""
    cert, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
        timeout=20,
    )
    return cert, key


def test_what_is_right(files: CertificateFiles, tmp_path: Path) -> None:
    cert, key = written(tmp_path / "cert", CERT), written(tmp_path / "key", KEY)
    both = written(tmp_path / "both", KEY + CERT)
    der = written(tmp_path / "der", b"\x30\x82\x01\x00")
    for path in (cert, both, der):
        assert files.certificate(path) is None
    for path in (key, both, der):
        assert files.key(path) is None
    assert files.authorities(cert) is None
    assert files.response(der) is None
    assert files.exists(key) is None
    for kind in ("RSA", "EC"):
        old = KEY.replace("PRIVATE", f"{kind} PRIVATE")
        assert files.key(written(tmp_path / kind, old)) is None


def test_what_is_not(files: CertificateFiles, tmp_path: Path) -> None:
    cert, key = written(tmp_path / "cert", CERT), written(tmp_path / "key", KEY)
    text, empty = written(tmp_path / "text", "hello"), written(tmp_path / "empty", "")
    der = written(tmp_path / "der", b"\x30\x82\x01\x00")
    assert files.certificate(key) == files.certificate(text) == "holds no certificate"
    assert files.key(cert) == files.key(text) == "holds no private key"
    assert files.authorities(der) == files.authorities(key) == "holds no certificate in PEM"
    assert files.response(text) == "is not an OCSP response in DER"
    assert files.certificate(empty) == "holds no certificate"


@pytest.mark.parametrize(
    "text",
    [
        KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        KEY.replace("PRIVATE", "RSA PRIVATE").replace("\nA", "\nProc-Type: 4,ENCRYPTED\nA"),
    ],
)
def test_nobody_types_a_passphrase(files: CertificateFiles, tmp_path: Path, text: str) -> None:
    assert "with a passphrase" in (files.key(written(tmp_path / "key", text)) or "")


def test_what_can_not_be_read(files: CertificateFiles, tmp_path: Path) -> None:
    assert files.exists(str(tmp_path / "none")) == "does not exist"
    assert files.exists(str(tmp_path)) == "is not a file"
    os.mkfifo(tmp_path / "pipe")
    assert files.exists(str(tmp_path / "pipe")) == "is not a file"
    assert "can't be read" in (files.exists("a\0b") or "")
    assert "can't be read" in (files.exists("x" * 5000) or "")


def test_what_may_not_be_read(files: CertificateFiles, tmp_path: Path) -> None:
    path = written(tmp_path / "key", KEY)
    os.chmod(path, 0)
    user = os.geteuid()
    try:
        if user == 0:
            # Root may read everything.
            os.seteuid(65534)
        assert files.key(path) == "can't be read: Permission denied"
    finally:
        os.seteuid(user)


def test_there_is_a_largest_file(
    files: CertificateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_files, "LARGEST", 2**20)
    path = written(tmp_path / "big", CERT + " " * 2**20)
    assert files.certificate(path) == "is larger than 1 MiB"


def test_each_file_is_read_once(
    files: CertificateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "both", CERT + KEY)
    assert files.certificate(path) is None
    os.remove(path)
    assert files.key(path) is None
    assert CertificateFiles().key(path) == "does not exist"


@needs_openssl
def test_a_key_of_another_certificate(files: CertificateFiles, tmp_path: Path) -> None:
    cert, key = issued(tmp_path, "a")
    _, other = issued(tmp_path, "b")
    assert files.belong_together(cert, key) is None
    assert files.belong_together(cert, other) == f"does not belong to the certificate in {cert}"


def test_what_can_not_be_compared_is_left_to_the_engine(
    files: CertificateFiles, tmp_path: Path
) -> None:
    cert, key = written(tmp_path / "cert", CERT), written(tmp_path / "key", KEY)
    der = written(tmp_path / "der", b"\x30\x82\x01\x00")
    assert files.belong_together(cert, key) is None
    assert files.belong_together(der, der) is None
