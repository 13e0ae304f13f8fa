"""Authorities, certificates and keys for tests, made by openssl, and contexts that use them."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

__all__ = ["Authority"]

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

_LEAF = "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
"""What strict verification (the default from Python 3.13 on) asks of every certificate."""


class Authority:
    """Issues certificates in a folder: ``name.crt`` and ``name.key``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cert = folder / "ca.crt"
        names = ("-subj", f"/CN={name}", "-days", "2")
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl(
            "req", "-x509", *_CURVE, *names, *usage, "-keyout", "ca.key", "-out", "ca.crt"
        )

    def issue(self, name: str, alternatives: str) -> tuple[Path, Path]:
        """A certificate for ``DNS:..,IP:..``, and its key."""
        files = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl("req", *_CURVE, "-subj", f"/O=tests/CN={name}", *files)
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternatives}\n{_LEAF}")
        issuer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        made = ("-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        self._openssl("x509", "-req", *issuer, *made)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def client(self, identity: str | None = None) -> ssl.SSLContext:
        """Trusts this authority; shows the certificate of that name when asked."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if identity is not None:
            context.load_cert_chain(*self._files(identity))
        return context

    def server(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files(name))
        return context

    def _files(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _openssl(self, *words: str) -> None:
        done = subprocess.run(
            ["openssl", *words], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
