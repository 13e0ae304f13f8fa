"""Going through another proxy: a connector layer. Stacked, they are a chain whose outermost layer
is the hop nearest to the target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from qanat.stack.address import Address
from qanat.stack.codec.http_connect import encode_connect, parse_connect_answer
from qanat.stack.codec.socks4 import Reply4, encode_request4, parse_reply4
from qanat.stack.codec.socks5 import (
    Command,
    Credentials,
    Method,
    Reply,
    encode_credentials,
    encode_greeting,
    encode_request,
    parse_method,
    parse_reply,
    parse_status,
)
from qanat.stack.codec.verdict import Parser
from qanat.stack.connect.proxy_url import ProxyUrl
from qanat.stack.connect.resolve import Resolve
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import ConnectError, Domain, Kind, LocalProtocolError, StackError
from qanat.stack.stream.base import Stream
from qanat.stack.stream.messages import read_message

__all__ = ["ViaProxy"]

T = TypeVar("T")

_REPLIES: Final[dict[int, tuple[Kind, str]]] = {
    Reply.GENERAL_FAILURE: ("proxy-reply", "general failure"),
    Reply.NOT_ALLOWED: ("denied", "not allowed"),
    Reply.NETWORK_UNREACHABLE: ("net-unreachable", "network unreachable"),
    Reply.HOST_UNREACHABLE: ("host-unreachable", "host unreachable"),
    Reply.REFUSED: ("refused", "connection refused"),
    Reply.TTL_EXPIRED: ("timeout", "timed out"),
    Reply.COMMAND_NOT_SUPPORTED: ("proxy-reply", "CONNECT is not supported"),
    Reply.ADDRESS_NOT_SUPPORTED: ("proxy-reply", "this type of address is not supported"),
}
_PROXY_STATUS: Final[dict[str, Kind]] = {
    "dns_error": "dns",
    "dns_timeout": "dns",
    "connection_refused": "refused",
    "connection_terminated": "reset",
    "connection_timeout": "timeout",
    "destination_ip_unroutable": "host-unreachable",
    "destination_unavailable": "host-unreachable",
    "destination_ip_prohibited": "denied",
    "connection_limit_reached": "limit",
    "http_request_denied": "denied",
}
_STATUSES: Final[dict[int, Kind]] = {
    401: "proxy-auth",
    403: "denied",
    407: "proxy-auth",
    451: "denied",
    504: "timeout",
}
_MOST_INTERIM: Final = 8


@dataclass(frozen=True, slots=True)
class ViaProxy:
    """``ViaProxy("socks5h://name:secret@host:1080")``; also socks5, socks4, socks4a, http, https.

    Addresses that a layer above has resolved are what the proxy is asked for; a name that nobody
    looked up is sent as it is, except with socks5 and socks4, which look it up here. The proxy's
    own name is for the layers below. The stream is the caller's; ConnectError is all that is
    raised, and a cancelled or failed attempt leaves nothing open.
    """

    url: str = field(repr=False)
    timeout: float = 30.0
    """Seconds for the exchange with the proxy, once it is connected to; it waits for the target."""
    tls: Callable[[Connector], Connector] | None = field(default=None, repr=False)
    """The layer that speaks TLS to the proxy itself, for https. None: by the engine, the proxy's
    certificate verified by the system's authorities."""
    resolve: Resolve = field(default_factory=Resolve, repr=False)
    """Who looks names up, for socks5 and socks4."""
    proxy: ProxyUrl = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "proxy", ProxyUrl.parse(self.url))

    def __call__(self, inner: Connector, /) -> Connector:
        if self.proxy.scheme == "https":
            inner = self._secured(inner)
        service: Connector = _Through(self.proxy, self.timeout, inner)
        return self.resolve(service) if self.proxy.looks_up_here else service

    def _secured(self, inner: Connector) -> Connector:
        if self.tls is not None:
            return self.tls(inner)
        # Only who needs it loads the engine.
        from qanat.stack.layers.engine_tls_connect import EngineTlsConnect

        return EngineTlsConnect()(inner)


@dataclass(frozen=True, slots=True)
class _Through:
    proxy: ProxyUrl
    timeout: float
    inner: Connector

    async def __call__(self, asked: ConnectTo, /) -> Stream:
        target = asked.target
        wanted = asked.candidates[0] if asked.candidates else target
        if asked.candidates == ():
            raise ConnectError(f"{target} has no address", kind="dns", target=str(target))
        stream = await self.inner(ConnectTo(self.proxy.address, asked.ext))
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                await self._ask(stream, wanted)
        except ConnectError:
            stream.abort()
            raise
        except LocalProtocolError as error:
            stream.abort()
            raise self._failed(wanted, "local", str(error)) from error
        except StackError as error:
            stream.abort()
            raise self._failed(wanted, "proxy-reply", str(error)) from error
        except TimeoutError as error:
            stream.abort()
            if not limit.expired():
                raise
            why = f"no answer in {self.timeout:g} s"
            raise self._failed(wanted, "timeout", why) from error
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _ask(self, stream: Stream, target: Address) -> None:
        scheme = self.proxy.scheme
        if scheme in ("socks5", "socks5h"):
            await self._socks5(stream, target)
        elif scheme in ("socks4", "socks4a"):
            await self._socks4(stream, target)
        else:
            await self._http(stream, target)

    async def _socks5(self, stream: Stream, target: Address) -> None:
        credentials = self.proxy.credentials
        # Before anything is sent: a name that can't be asked for costs no round trip.
        request = encode_request(Command.CONNECT, target)
        offered = [Method.NONE] if credentials is None else [Method.NONE, Method.PASSWORD]
        await stream.write(encode_greeting(offered))
        method = await self._read(stream, parse_method)
        if method == Method.PASSWORD and credentials is not None:
            await self._authenticate(stream, target, credentials)
        elif method == Method.NO_ACCEPTABLE:
            why = "takes none of our ways to authenticate"
            raise self._failed(target, "proxy-auth", why)
        elif method != Method.NONE:
            raise self._failed(target, "proxy-reply", f"chose method {method}, not offered")
        await stream.write(request)
        code, _ = await self._read(stream, parse_reply)
        if code != Reply.SUCCEEDED:
            kind, why = _REPLIES.get(code, ("proxy-reply", f"reply {code}"))
            raise self._failed(target, kind, why)

    async def _authenticate(
        self, stream: Stream, target: Address, credentials: Credentials
    ) -> None:
        await stream.write(encode_credentials(credentials))
        if not await self._read(stream, parse_status):
            raise self._failed(target, "proxy-auth", "refuses name and password")

    async def _socks4(self, stream: Stream, target: Address) -> None:
        credentials = self.proxy.credentials
        user = b"" if credentials is None else credentials.name
        await stream.write(encode_request4(Command.CONNECT, target, user))
        code = await self._read(stream, parse_reply4)
        if code in (Reply4.NO_IDENTD, Reply4.OTHER_USER):
            raise self._failed(target, "proxy-auth", "refuses the user")
        if code != Reply4.GRANTED:
            raise self._failed(target, "proxy-reply", "rejected or failed")

    async def _http(self, stream: Stream, target: Address) -> None:
        await stream.write(encode_connect(target, self.proxy.credentials))
        for _ in range(_MOST_INTERIM):
            answer = await self._read(stream, parse_connect_answer)
            if answer.status < 100 or answer.status >= 200 or answer.status == 101:
                break
        if 200 <= answer.status < 300:
            return
        kind = _kind_of_status(answer.status, answer.field("proxy-status"))
        raise self._failed(target, kind, f"answers {answer.status}")

    async def _read(self, stream: Stream, parse: Parser[T]) -> T:
        return await read_message(stream, parse, "the proxy's answer")

    def _failed(self, target: Address, kind: Kind, why: str) -> ConnectError:
        domain: Domain = "transport"
        if kind in ("denied", "proxy-auth", "proxy-reply", "limit"):
            domain = "application"
        elif kind == "local":
            domain = "local"
        line = f"{target} via {self.proxy}: {why}"
        return ConnectError(line, kind=kind, domain=domain, target=str(target), attempts=(line,))


def _kind_of_status(status: int, proxy_status: str | None) -> Kind:
    """RFC 9209 tells more than a number does. The last member is the hop nearest to us."""
    found = _STATUSES.get(status)
    if proxy_status is not None and found != "proxy-auth":
        for parameter in proxy_status.rpartition(",")[2].split(";"):
            name, _, value = parameter.strip().partition("=")
            if name == "error":
                return _PROXY_STATUS.get(value.strip(' "'), found or "proxy-reply")
    return found or "proxy-reply"
