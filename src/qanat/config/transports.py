"""What wraps a leg, as tables: TLS outside, WebSocket inside it, datagrams inside both.

The same can be written as one text, :mod:`qanat.config.transport_options`. Files are named here and
opened elsewhere: this module does no I/O.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictStr,
    Tag,
    ValidationError,
    model_validator,
)

from qanat.config.address import AddressError, parse_host
from qanat.config.explain import explain
from qanat.config.refusal import refuse
from qanat.config.table import Model
from qanat.config.transport_options import LISTEN, REMOTE, OptionError, Side, parse_options
from qanat.config.unbuilt import needs

__all__ = [
    "Certificate",
    "ListenTls",
    "ListenTransport",
    "ListenWrapping",
    "RemoteTls",
    "RemoteTransport",
    "RemoteWrapping",
    "WebSocket",
    "listen_transport",
    "remote_transport",
    "transport_notices",
]

LONGEST_ALPN: Final = 255


def _name(text: str) -> str:
    try:
        parse_host(text)
    except AddressError as error:
        refuse(str(error), error.hint)
    return text


def _in_head(text: str) -> str:
    """Parts of an HTTP request: what ends a line or a word there can't be in them."""
    if not text.isascii() or not text.isprintable() or " " in text:
        refuse("must be printable ASCII without blanks")
    return text


def _protocol(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > LONGEST_ALPN:
        refuse(f"a protocol's name has at most {LONGEST_ALPN} bytes")
    return text


def _uot(value: bool) -> bool:
    if value:
        needs("uot")
    return value


_File = Annotated[StrictStr, Field(min_length=1)]
_Name = Annotated[StrictStr, Field(min_length=1), AfterValidator(_name)]
_HeadPart = Annotated[StrictStr, Field(min_length=1, max_length=2048), AfterValidator(_in_head)]
_Protocols = list[Annotated[StrictStr, Field(min_length=1), AfterValidator(_protocol)]]
_Uot = Annotated[StrictBool, AfterValidator(_uot)]


class WebSocket(Model):
    """One WebSocket connection carries one flow, in binary frames."""

    host: _HeadPart
    """The Host of the request: sent by us, or asked of clients, who must send exactly this."""

    path: _HeadPart
    """The target of the request, with its query, in the same way."""

    mask: Literal["zero", "random"] = "zero"
    """The mask of the frames that we send as a client. `zero` costs nothing and is what realm
    understands; `random` is what the standard asks for, and servers that check it need it."""

    @model_validator(mode="after")
    def _built(self) -> WebSocket:
        needs("ws")
        return self


class Certificate(Model):
    """A certificate and its key, for the names that are in the certificate."""

    cert: _File
    """The file of the certificate chain, in PEM or DER."""

    key: _File
    """The file of the private key, in PEM or DER, without a passphrase."""

    ocsp: _File | None = None
    """A file with an OCSP response in DER, which is shown to clients that ask."""


class ListenTls(Model):
    """TLS towards clients: `cert` and `key`, `certificates`, or `servername`."""

    cert: _File | None = None
    """The file of the certificate chain, in PEM or DER."""

    key: _File | None = None
    """The file of its private key, in PEM or DER, without a passphrase."""

    ocsp: _File | None = None
    """A file with an OCSP response in DER, which is shown to clients that ask."""

    servername: _Name | None = None
    """The name in a certificate that is made at start, signed by nobody. No effect beside
    certificates from files."""

    certificates: list[Certificate] = Field(default_factory=list)
    """Further certificates. Each client gets the one for the name it asks for, and the first of
    all if none is."""

    alpn: _Protocols = Field(default_factory=list)
    """Protocols to choose from when a client offers some, the most wanted first."""

    client_ca: _File | None = None
    """A PEM file of authorities: clients have to show a certificate of one of them."""

    client_optional: StrictBool = False
    """With `client_ca`: clients may come without a certificate."""

    key_log: StrictBool = False
    """Write the secrets of each connection to the file that SSLKEYLOGFILE names, for debugging."""

    @model_validator(mode="after")
    def _complete(self) -> ListenTls:
        needs("tls")
        if self.cert is not None and self.key is None:
            refuse("needs the key beside it", "key = the file of the private key", at="cert")
        if self.key is not None and self.cert is None:
            refuse("needs cert beside it", "cert = the file of the certificate", at="key")
        if self.cert is None and not self.certificates and self.servername is None:
            refuse(
                "TLS needs a certificate: cert and key, or servername",
                "servername makes one that nobody signed",
            )
        if self.ocsp is not None and self.cert is None:
            refuse("needs cert and key beside it", at="ocsp")
        if self.client_optional and self.client_ca is None:
            refuse("needs client_ca beside it", at="client_optional")
        return self

    def chains(self) -> list[Certificate]:
        """All certificates from files; the first one is for clients that name nobody known."""
        if self.cert is None or self.key is None:
            return list(self.certificates)
        own = Certificate.model_construct(cert=self.cert, key=self.key, ocsp=self.ocsp)
        return [own, *self.certificates]


class RemoteTls(Model):
    """TLS towards targets."""

    sni: _Name
    """The name that is asked for, and that the target's certificate has to hold. An address is
    verified and not sent."""

    alpn: _Protocols = Field(default_factory=list)
    """Protocols that are offered, the most wanted first."""

    insecure: StrictBool = False
    """Accept any certificate. What is sent can be read and changed by whoever is in between."""

    ca: _File | None = None
    """A PEM file of authorities to trust, in place of the system's."""

    cert: _File | None = None
    """The file of our own certificate chain, for targets that ask for one."""

    key: _File | None = None
    """The file of its private key."""

    key_log: StrictBool = False
    """Write the secrets of each connection to the file that SSLKEYLOGFILE names, for debugging."""

    @model_validator(mode="after")
    def _complete(self) -> RemoteTls:
        needs("tls")
        if (self.cert is None) != (self.key is None):
            here, other = ("key", "cert") if self.cert is None else ("cert", "key")
            refuse(f"needs {other} beside it", at=here)
        return self


class ListenTransport(Model):
    """What clients wrap their flows in."""

    tls: ListenTls | None = None
    """TLS, around everything else."""

    ws: WebSocket | None = None
    """WebSocket, inside of TLS if that is there too."""

    uot: _Uot = False
    """Each connection carries the datagrams of one UDP client, each behind its length. The other
    side is `uot` in another qanat's `remote_transport`."""

    @model_validator(mode="after")
    def _something(self) -> ListenTransport:
        _refuse_nothing(self.tls, self.ws, self.uot)
        return self


class RemoteTransport(Model):
    """What flows to the target are wrapped in."""

    tls: RemoteTls | None = None
    """TLS, around everything else."""

    ws: WebSocket | None = None
    """WebSocket, inside of TLS if that is there too."""

    uot: _Uot = False
    """UDP associations go to the target in a connection each, every datagram behind its length.
    The other side is `uot` in another qanat's `listen_transport`."""

    @model_validator(mode="after")
    def _something(self) -> RemoteTransport:
        _refuse_nothing(self.tls, self.ws, self.uot)
        return self


def _refuse_nothing(*layers: object) -> None:
    if not any(layers):
        refuse("asks for nothing", "tls, ws or uot, or take the table out")


def listen_transport(written: str | ListenTransport | None) -> ListenTransport | None:
    """The table that is written, or meant by a text that was accepted."""
    return _listen_text(written) if isinstance(written, str) else written


def remote_transport(written: str | RemoteTransport | None) -> RemoteTransport | None:
    """The table that is written, or meant by a text that was accepted."""
    return _remote_text(written) if isinstance(written, str) else written


def transport_notices(written: object, side: Side) -> list[str]:
    """What to tell whoever wrote a text that was accepted."""
    return parse_options(written, side).notices if isinstance(written, str) else []


@lru_cache(maxsize=1024)
def _listen_text(text: str) -> ListenTransport | None:
    table = parse_options(text, LISTEN).table
    return ListenTransport.model_validate(table) if table else None


@lru_cache(maxsize=1024)
def _remote_text(text: str) -> RemoteTransport | None:
    table = parse_options(text, REMOTE).table
    return RemoteTransport.model_validate(table) if table else None


def _checked(text: str, side: Side) -> str:
    try:
        if side is LISTEN:
            _listen_text(text)
        else:
            _remote_text(text)
    except OptionError as error:
        refuse(str(error), error.hint)
    except ValidationError as error:
        details: Any = error.errors(include_url=False)[0]
        *_, layer, name = ("", "", *(part for part in details["loc"] if isinstance(part, str)))
        if details["type"] == "missing":
            refuse(f'"{layer}" needs {name}=', f"{layer};{name}=...")
        (problem, *_) = explain(error, ListenTransport if side is LISTEN else RemoteTransport)
        name = (problem.key or "").rpartition(".")[2]
        named = problem.message if name in ("", "tls", "ws") else f'"{name}": {problem.message}'
        refuse(named, problem.hint, kind="not_yet" if details["type"] == "not_yet" else "wrong")
    return text


def _listen_checked(text: str) -> str:
    return _checked(text, LISTEN)


def _remote_checked(text: str) -> str:
    return _checked(text, REMOTE)


def _form(value: object) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<table>" if isinstance(value, dict | Model) else None


_FORMS: Final = Discriminator(
    _form,
    custom_error_type="wrong",
    custom_error_message="must be text or a table",
)

ListenWrapping: TypeAlias = Annotated[
    Annotated[StrictStr, AfterValidator(_listen_checked), Tag("<text>")]
    | Annotated[ListenTransport, Tag("<table>")],
    _FORMS,
]
"""Stays as it was written: :func:`listen_transport` says what it means."""

RemoteWrapping: TypeAlias = Annotated[
    Annotated[StrictStr, AfterValidator(_remote_checked), Tag("<text>")]
    | Annotated[RemoteTransport, Tag("<table>")],
    _FORMS,
]
"""Stays as it was written: :func:`remote_transport` says what it means."""
