"""Transports as tables and as text, one meaning in both forms."""

from typing import Any

import pytest

from qanat.config.models import (
    Certificate,
    Endpoint,
    ListenTls,
    ListenTransport,
    RemoteTls,
    RemoteTransport,
)
from qanat.config.transport_options import LISTEN, REMOTE
from qanat.config.transports import transport_notices
from qanat.errors import ConfigError

__all__: list[str] = []

GOOD = {"listen": ":1", "remote": "a:1"}


def endpoint(**more: Any) -> Endpoint:
    return Endpoint(**(GOOD | more))


def refused(**more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        endpoint(**more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("ws;host=a;path=/", {"ws": {"host": "a", "path": "/"}}),
        ("tls;servername=a", {"tls": {"servername": "a"}}),
        (
            "uot;tls;cert=a;key=b;ocsp=c;alpn=x,y;client_ca=d;client_optional;key_log",
            {
                "uot": True,
                "tls": {
                    "cert": "a",
                    "key": "b",
                    "ocsp": "c",
                    "alpn": ["x", "y"],
                    "client_ca": "d",
                    "client_optional": True,
                    "key_log": True,
                },
            },
        ),
    ],
)
def test_both_forms_of_a_listening_side(text: str, table: dict[str, Any]) -> None:
    wrapped = endpoint(listen_transport=text).listen_wrapping
    assert wrapped is not None
    assert wrapped == endpoint(listen_transport=table).listen_wrapping
    assert wrapped == ListenTransport.model_validate(table)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("ws;host=a;path=/;mask=random", {"ws": {"host": "a", "path": "/", "mask": "random"}}),
        (
            "tls;sni=192.0.2.1;insecure;ca=a;cert=b;key=c;alpn=h2",
            {
                "tls": {
                    "sni": "192.0.2.1",
                    "insecure": True,
                    "ca": "a",
                    "cert": "b",
                    "key": "c",
                    "alpn": ["h2"],
                }
            },
        ),
    ],
)
def test_both_forms_of_a_sending_side(text: str, table: dict[str, Any]) -> None:
    wrapped = endpoint(remote_transport=text).remote_wrapping
    assert wrapped is not None
    assert wrapped == endpoint(remote_transport=table).remote_wrapping
    assert wrapped == RemoteTransport.model_validate(table)


@pytest.mark.parametrize("text", ["", " ", ";", "0rtt"])
def test_nothing_is_no_transport(text: str) -> None:
    made = endpoint(listen_transport=text, remote_transport=text)
    assert (made.listen_wrapping, made.remote_wrapping) == (None, None)


def test_what_was_written_stays() -> None:
    text, table = "tls;servername=a", {"tls": {"servername": "a"}}
    made = endpoint(listen_transport=text), endpoint(listen_transport=table)
    dumped = [one.model_dump(mode="json", exclude_unset=True)["listen_transport"] for one in made]
    assert dumped == [text, table]
    assert made[0] == endpoint(listen_transport=text)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"listen_transport": 5}, "listen_transport = 5: must be text or a table"),
        ({"listen_transport": ["ws"]}, "must be text or a table"),
        ({"listen_transport": {}}, "listen_transport: asks for nothing"),
        ({"remote_transport": {"uot": False}}, "remote_transport: asks for nothing"),
        ({"listen_transport": {"tsl": {}}}, ".tsl: unknown key (did you mean tls?)"),
        ({"listen_transport": {"tls": {}}}, "TLS needs a certificate"),
        ({"listen_transport": {"tls": {"cert": "a"}}}, "tls.cert = \"a\": needs the key beside it"),
        ({"listen_transport": {"tls": {"key": "a"}}}, "tls.key = \"a\": needs cert beside it"),
        ({"listen_transport": {"tls": {"servername": "a", "ocsp": "b"}}}, "needs cert and key"),
        (
            {"listen_transport": {"tls": {"servername": "a", "client_optional": True}}},
            "needs client_ca",
        ),
        ({"listen_transport": {"tls": {"servername": "a b"}}}, "is not a host name"),
        (
            {"listen_transport": {"tls": {"certificates": [{"cert": "a"}]}}},
            "listen_transport.tls.certificates[0].key: is missing",
        ),
        ({"remote_transport": {"tls": {}}}, "remote_transport.tls.sni: is missing"),
        ({"remote_transport": {"tls": {"sni": "a", "cert": "b"}}}, "needs key beside it"),
        ({"remote_transport": {"tls": {"sni": "a", "alpn": "h2"}}}, 'must be a list (["h2"])'),
        ({"remote_transport": {"tls": {"sni": "a", "alpn": ["x" * 256]}}}, "at most 255 bytes"),
        ({"remote_transport": {"tls": {"sni": "a", "alpn": [""]}}}, "must not be empty"),
        ({"remote_transport": {"ws": {"host": "a"}}}, "remote_transport.ws.path: is missing"),
        ({"remote_transport": {"ws": {"host": "a\r\nb", "path": "/"}}}, "printable ASCII"),
        ({"remote_transport": {"ws": {"host": "a", "path": "/ b"}}}, "printable ASCII"),
        ({"remote_transport": {"ws": {"host": "a", "path": "/", "mask": 1}}}, "zero or random"),
        ({"listen_transport": "tls"}, 'listen_transport = "tls": TLS needs a certificate'),
        ({"listen_transport": "tls;cert=a"}, '"cert": needs the key beside it'),
        ({"listen_transport": "tls;servername=a b"}, '"servername": "a b" is not a host name'),
        ({"remote_transport": "tls"}, '"tls" needs sni= (tls;sni=...)'),
        ({"remote_transport": "tls;sni=a;key=b"}, '"key": needs cert beside it'),
        ({"remote_transport": "ws;host=a;path=/ b"}, '"path": must be printable ASCII'),
    ],
)  # fmt: skip
def test_refuses(more: dict[str, Any], message: str) -> None:
    assert message in refused(**more)


def test_a_python_program_may_give_tables() -> None:
    tls = ListenTls(certificates=[Certificate(cert="a", key="b")])
    made = endpoint(
        listen_transport=ListenTransport(tls=tls),
        remote_transport=RemoteTransport(tls=RemoteTls(sni="a"), uot=True),
    )
    assert made.listen_wrapping == ListenTransport(tls=tls)
    assert made.remote_wrapping is not None and made.remote_wrapping.uot


def test_chains() -> None:
    more = [Certificate(cert="c", key="d", ocsp="e")]
    own = Certificate(cert="a", key="b")
    assert ListenTls(cert="a", key="b", certificates=more).chains() == [own, *more]
    assert ListenTls(certificates=more).chains() == more
    assert ListenTls(servername="a").chains() == []


def test_notices_are_for_texts() -> None:
    assert transport_notices("tls;sni=a;0rtt", REMOTE)
    assert transport_notices("tls;servername=a", LISTEN) == []
    assert transport_notices(ListenTransport(uot=True), LISTEN) == []
    assert transport_notices(None, LISTEN) == []
