"""What TLS servers and clients of this package are set up by: files are read, and mistakes in them
told, when a stack is made."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qanat.plan import CertificatePlan, TlsAcceptPlan, TlsListenPlan
from qanat.stack.errors import LocalProtocolError

__all__ = ["TlsClientConfig", "TlsServerConfig", "asked_name"]

_ASKED = "qanat_asked_name"


@dataclass(frozen=True, slots=True)
class TlsServerConfig:
    """A certificate, its key, and what else is served.

    ``names`` holds other certificates by the name that clients ask for; ``*.example.com`` stands
    for all names one label below. Who asks for none of them gets the first certificate.
    """

    certificate: str
    """The path of a PEM file with the chain."""
    key: str
    alpn: tuple[str, ...] = ()
    """Most wanted first."""
    client_ca: str | None = None
    """PEM file of authorities; clients must show a certificate of one of them."""
    client_optional: bool = False
    """With ``client_ca``: clients may come without a certificate."""
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_alpn(self.alpn)

    @classmethod
    def from_files(
        cls, certificate: str, key: str, *, alpn: tuple[str, ...] = ()
    ) -> TlsServerConfig:
        return cls(certificate, key, alpn)

    def context(self) -> ssl.SSLContext:
        """:raises LocalProtocolError: a file can't be used, with its name and why."""
        first = self._one(self.certificate, self.key)
        others = {name.lower().rstrip("."): self._one(*files) for name, files in self.names.items()}

        def asked(session: Any, name: str | None, _: ssl.SSLContext) -> None:
            if name is None:
                return
            setattr(session, _ASKED, name)
            low = name.lower().rstrip(".")
            other = others.get(low) or others.get("*." + low.partition(".")[2])
            if other is not None:
                session.context = other

        first.sni_callback = asked
        return first

    def plan(self, handshake_timeout: float, *, hello: bool = False) -> TlsAcceptPlan:
        """The same for the engine, which chooses among certificates by the names in them."""
        files = [(self.certificate, self.key), *self.names.values()]
        return TlsAcceptPlan(
            tls=TlsListenPlan(
                certificates=tuple(CertificatePlan(cert=cert, key=key) for cert, key in files),
                alpn=self.alpn,
                client_ca=self.client_ca,
                client_optional=self.client_optional,
            ),
            handshake_timeout=handshake_timeout,
            hello=hello,
        )

    def _one(self, certificate: str, key: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _harden(context, self.alpn)
        _load_own(context, certificate, key)
        if self.client_ca is not None:
            _load_authorities(context, self.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL if self.client_optional else ssl.CERT_REQUIRED
        return context


@dataclass(frozen=True, slots=True)
class TlsClientConfig:
    """Servers are verified by the system's authorities unless something else is said."""

    ca: str | None = None
    """PEM file of authorities in place of the system's."""
    alpn: tuple[str, ...] = ()
    insecure: bool = False
    """Accept any certificate of anybody."""
    certificate: str | None = None
    """Our own, for servers that ask for one; ``key`` goes with it."""
    key: str | None = None

    def __post_init__(self) -> None:
        _check_alpn(self.alpn)
        if (self.certificate is None) != (self.key is None):
            raise LocalProtocolError("a certificate and its key go together")

    def context(self) -> ssl.SSLContext:
        """:raises LocalProtocolError: a file can't be used, with its name and why."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _harden(context, self.alpn)
        if self.certificate is not None and self.key is not None:
            _load_own(context, self.certificate, self.key)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            _load_authorities(context, self.ca)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context


def asked_name(session: ssl.SSLObject) -> str | None:
    """The name that a client asked our server for."""
    name: str | None = getattr(session, _ASKED, None)
    return name


def _check_alpn(alpn: tuple[str, ...]) -> None:
    if isinstance(alpn, str):
        # It would be a protocol for each letter.
        raise LocalProtocolError(f'alpn="{alpn}" is a text: write ("{alpn}",)')


def _harden(context: ssl.SSLContext, alpn: tuple[str, ...]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if alpn:
        context.set_alpn_protocols(list(alpn))


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for path in (certificate, key):
        _check_readable(path)
    try:
        # A key with a passphrase is refused; the library would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"the key in {key} is not that of the certificate"
        else:
            why = f"no PEM certificate in it, or no PEM key without a passphrase in {key}"
        raise LocalProtocolError(f"{certificate}: {why}") from None


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    _check_readable(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise LocalProtocolError(f"{path}: no PEM certificates in it") from error


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise LocalProtocolError(f"{path}: {error.strerror}") from None
