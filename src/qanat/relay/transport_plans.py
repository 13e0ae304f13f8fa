"""What wraps a leg, from the configuration's tables to plans; finds the files that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from qanat.config.address import parse_host
from qanat.config.models import ListenTls, ListenTransport, RemoteTls, RemoteTransport, WebSocket
from qanat.plan import (
    CertificatePlan,
    ListenTransportPlan,
    RemoteTransportPlan,
    TlsListenPlan,
    TlsSendPlan,
    WebSocketPlan,
)
from qanat.relay.certificate_files import CertificateFiles

__all__ = ["WrongFile", "listen_plan", "remote_plan", "wrong_listen_files", "wrong_remote_files"]

WrongFile: TypeAlias = tuple[str, str, str]
"""The key within the transport's table, the path there, and what is wrong with the file."""


def listen_plan(wrapping: ListenTransport, handshake_timeout: float) -> ListenTransportPlan:
    return ListenTransportPlan(
        tls=None if wrapping.tls is None else _listen_tls(wrapping.tls),
        ws=_web_socket(wrapping.ws),
        uot=wrapping.uot,
        handshake_timeout=handshake_timeout,
    )


def remote_plan(wrapping: RemoteTransport, handshake_timeout: float) -> RemoteTransportPlan:
    return RemoteTransportPlan(
        tls=None if wrapping.tls is None else _remote_tls(wrapping.tls),
        ws=_web_socket(wrapping.ws),
        uot=wrapping.uot,
        handshake_timeout=handshake_timeout,
    )


def wrong_listen_files(tls: ListenTls, files: CertificateFiles) -> Iterator[WrongFile]:
    chains = tls.chains()
    own = len(chains) - len(tls.certificates)
    for number, chain in enumerate(chains):
        where = "tls" if number < own else f"tls.certificates[{number - own}]"
        yield from _wrong_pair(where, chain.cert, chain.key, files)
        if chain.ocsp is not None:
            yield from _wrong(f"{where}.ocsp", chain.ocsp, files.response)
    if tls.client_ca is not None:
        yield from _wrong("tls.client_ca", tls.client_ca, files.authorities)


def wrong_remote_files(tls: RemoteTls, files: CertificateFiles) -> Iterator[WrongFile]:
    if tls.ca is not None:
        yield from _wrong("tls.ca", tls.ca, files.authorities)
    if tls.cert is not None and tls.key is not None:
        yield from _wrong_pair("tls", tls.cert, tls.key, files)


def _wrong_pair(where: str, cert: str, key: str, files: CertificateFiles) -> Iterator[WrongFile]:
    found = [
        *_wrong(f"{where}.cert", cert, files.certificate),
        *_wrong(f"{where}.key", key, files.key),
    ]
    if not found:
        found += _wrong(f"{where}.key", key, lambda path: files.belong_together(cert, path))
    yield from found


def _wrong(where: str, path: str, look: Callable[[str], str | None]) -> Iterator[WrongFile]:
    why = look(path)
    if why is not None:
        yield where, path, why


def _listen_tls(tls: ListenTls) -> TlsListenPlan:
    chains = tuple(
        CertificatePlan(cert=chain.cert, key=chain.key, ocsp=chain.ocsp) for chain in tls.chains()
    )
    return TlsListenPlan(
        certificates=chains,
        self_signed=None if chains or tls.servername is None else _name(tls.servername),
        alpn=tuple(tls.alpn),
        client_ca=tls.client_ca,
        client_optional=tls.client_optional,
        key_log=tls.key_log,
    )


def _remote_tls(tls: RemoteTls) -> TlsSendPlan:
    return TlsSendPlan(
        sni=_name(tls.sni),
        alpn=tuple(tls.alpn),
        insecure=tls.insecure,
        ca=tls.ca,
        cert=tls.cert,
        key=tls.key,
        key_log=tls.key_log,
    )


def _name(text: str) -> str:
    """In the form that goes over the wire: without brackets, and other scripts as punycode."""
    return str(parse_host(text))


def _web_socket(ws: WebSocket | None) -> WebSocketPlan | None:
    return None if ws is None else WebSocketPlan(host=ws.host, path=ws.path, mask=ws.mask)
