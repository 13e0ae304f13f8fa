"""The way questions about TLS open a peer: it terminates TLS in front of plain targets."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.failure import BenchmarkError
from benchmarks.peers import Certificate, Haproxy, Nginx, Peer, Qanat
from benchmarks.relayed import Site, site

__all__ = ["certificate", "terminating"]


@contextmanager
def terminating(peer: Peer, *roles: str) -> Iterator[Site]:
    """The peer with a certificate of its own, ECDSA P-256 as most have today."""
    if not isinstance(peer, Nginx | Haproxy | Qanat):
        raise BenchmarkError(f"{peer.name} terminates no TLS")
    with tempfile.TemporaryDirectory(prefix="qanat-bench-") as folder:
        # Workers of a root's nginx run as another user.
        Path(folder).chmod(0o755)
        with site(replace(peer, certificate=certificate(Path(folder))), *roles) as here:
            yield here


def certificate(folder: Path) -> Certificate:
    """For ``relay.test``, of an ECDSA key on P-256."""
    if shutil.which("openssl") is None:
        raise BenchmarkError("openssl is missing: it makes the certificate")
    made = Certificate(folder / "chain.pem", folder / "key.pem", folder / "both.pem")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    names = ("-subj", "/CN=relay.test", "-addext", "subjectAltName=DNS:relay.test")
    files = ("-keyout", str(made.key), "-out", str(made.chain))
    command = ["openssl", "req", "-x509", *curve, "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    made.both.write_bytes(made.chain.read_bytes() + made.key.read_bytes())
    return made
