"""Transports from tables to plans, and the files that are not what they should be."""

from __future__ import annotations

import pytest

from qanat.config.models import Certificate, ListenTls, ListenTransport, RemoteTls, RemoteTransport
from qanat.config.models import WebSocket as Ws
from qanat.plan import (
    CertificatePlan,
    ListenTransportPlan,
    RemoteTransportPlan,
    TlsListenPlan,
    TlsSendPlan,
    WebSocketPlan,
)
from qanat.relay.certificate_files import CertificateFiles
from qanat.relay.transport_plans import (
    listen_plan,
    remote_plan,
    wrong_listen_files,
    wrong_remote_files,
)

__all__: list[str] = []


class Wrong(CertificateFiles):
    """Every file is wrong in its own way."""

    def certificate(self, path: str) -> str | None:
        return f"certificate {path}"

    def key(self, path: str) -> str | None:
        return f"key {path}"

    def response(self, path: str) -> str | None:
        return f"response {path}"

    def authorities(self, path: str) -> str | None:
        return f"authorities {path}"


class Mixed(CertificateFiles):
    """Every file is right, and no key belongs to its certificate."""

    def certificate(self, path: str) -> str | None:
        return None

    key = response = authorities = certificate

    def belong_together(self, cert: str, key: str) -> str | None:
        return f"{cert} and {key}"


def test_everything_of_a_listening_side_arrives() -> None:
    wrapping = ListenTransport(
        tls=ListenTls(
            cert="a.pem",
            key="a.key",
            ocsp="a.ocsp",
            certificates=[Certificate(cert="b.pem", key="b.key")],
            alpn=["h2", "http/1.1"],
            client_ca="ca.pem",
            client_optional=True,
            key_log=True,
        ),
        ws=Ws(host="h", path="/p", mask="random"),
        uot=True,
    )
    assert listen_plan(wrapping, 3.0) == ListenTransportPlan(
        tls=TlsListenPlan(
            certificates=(
                CertificatePlan(cert="a.pem", key="a.key", ocsp="a.ocsp"),
                CertificatePlan(cert="b.pem", key="b.key"),
            ),
            alpn=("h2", "http/1.1"),
            client_ca="ca.pem",
            client_optional=True,
            key_log=True,
        ),
        ws=WebSocketPlan(host="h", path="/p", mask="random"),
        uot=True,
        handshake_timeout=3.0,
    )


def test_a_certificate_is_made_only_where_there_is_none() -> None:
    alone = listen_plan(ListenTransport(tls=ListenTls(servername="a")), 10.0).tls
    assert alone is not None
    assert (alone.self_signed, alone.certificates) == ("a", ())
    tls = ListenTls(servername="a", certificates=[Certificate(cert="b", key="c")])
    beside = listen_plan(ListenTransport(tls=tls), 10.0).tls
    assert beside is not None
    assert (beside.self_signed, len(beside.certificates)) == (None, 1)


def test_everything_of_a_sending_side_arrives() -> None:
    tls = RemoteTls(
        sni="a", alpn=["h2"], insecure=True, ca="ca.pem", cert="c.pem", key="c.key", key_log=True
    )
    assert remote_plan(RemoteTransport(tls=tls), 0.5) == RemoteTransportPlan(
        tls=TlsSendPlan(
            sni="a",
            alpn=("h2",),
            insecure=True,
            ca="ca.pem",
            cert="c.pem",
            key="c.key",
            key_log=True,
        ),
        handshake_timeout=0.5,
    )


def test_every_file_is_looked_at_and_named_by_its_key() -> None:
    tls = ListenTls(
        cert="1",
        key="2",
        ocsp="3",
        client_ca="4",
        certificates=[Certificate(cert="5", key="6", ocsp="7")],
    )
    assert list(wrong_listen_files(tls, Wrong())) == [
        ("tls.cert", "1", "certificate 1"),
        ("tls.key", "2", "key 2"),
        ("tls.ocsp", "3", "response 3"),
        ("tls.certificates[0].cert", "5", "certificate 5"),
        ("tls.certificates[0].key", "6", "key 6"),
        ("tls.certificates[0].ocsp", "7", "response 7"),
        ("tls.client_ca", "4", "authorities 4"),
    ]
    sending = RemoteTls(sni="a", ca="1", cert="2", key="3")
    assert list(wrong_remote_files(sending, Wrong())) == [
        ("tls.ca", "1", "authorities 1"),
        ("tls.cert", "2", "certificate 2"),
        ("tls.key", "3", "key 3"),
    ]


def test_keys_are_held_against_their_certificates() -> None:
    tls = ListenTls(certificates=[Certificate(cert="1", key="2")], cert="3", key="4")
    assert list(wrong_listen_files(tls, Mixed())) == [
        ("tls.key", "4", "3 and 4"),
        ("tls.certificates[0].key", "2", "1 and 2"),
    ]


def test_what_names_no_file_needs_none() -> None:
    assert list(wrong_listen_files(ListenTls(servername="a"), Wrong())) == []
    assert list(wrong_remote_files(RemoteTls(sni="a"), Wrong())) == []


@pytest.mark.parametrize(
    ("written", "planned"),
    [("bücher.example", "xn--bcher-kva.example"), ("[2001:db8::1]", "2001:db8::1"), ("A.b", "A.b")],
)
def test_names_have_the_form_that_goes_over_the_wire(written: str, planned: str) -> None:
    sending = remote_plan(RemoteTransport(tls=RemoteTls(sni=written)), 1.0).tls
    listening = listen_plan(ListenTransport(tls=ListenTls(servername=written)), 1.0).tls
    assert sending is not None and sending.sni == planned
    assert listening is not None and listening.self_signed == planned
