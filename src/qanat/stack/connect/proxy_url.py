"""The URL of a proxy: ``socks5h://name:secret@proxy.example:1080``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import unquote_to_bytes

from qanat.stack.address import Address
from qanat.stack.codec.socks5 import Credentials

__all__ = ["ProxyUrl", "Scheme"]

Scheme = Literal["socks5", "socks5h", "socks4", "socks4a", "http", "https"]

_PORTS: Final = {
    "socks5": 1080,
    "socks5h": 1080,
    "socks4": 1080,
    "socks4a": 1080,
    "http": 80,
    "https": 443,
}


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """``socks5`` and ``socks4`` look the target's name up here, the others at the proxy."""

    scheme: Scheme
    address: Address
    credentials: Credentials | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> ProxyUrl:
        """ValueError with a sentence, which never shows a password."""
        scheme, colon, rest = text.partition("://")
        scheme = scheme.lower()
        if not colon or scheme not in _PORTS:
            known = ", ".join(f"{one}://" for one in _PORTS)
            raise ValueError(f"the URL of a proxy begins with one of {known}")
        authority, _, path = rest.partition("/")
        if path or any(mark in authority for mark in "?#"):
            raise ValueError("the URL of a proxy ends after host and port")
        user, at, place = authority.rpartition("@")
        address = Address.parse(place, _PORTS[scheme])
        credentials = None
        if at:
            name, _, password = user.partition(":")
            credentials = Credentials(unquote_to_bytes(name), unquote_to_bytes(password))
            _check(scheme, credentials)
        return cls(cast(Scheme, scheme), address, credentials)

    @property
    def looks_up_here(self) -> bool:
        return self.scheme in ("socks5", "socks4")

    def __str__(self) -> str:
        """Without name and password."""
        return f"{self.scheme}://{self.address}"


def _check(scheme: str, credentials: Credentials) -> None:
    name, password = credentials.name, credentials.password
    if scheme.startswith("socks4"):
        if password:
            raise ValueError("SOCKS 4 has no passwords, only a name")
        if len(name) > 255 or b"\0" in name:
            raise ValueError("SOCKS 4 takes a name of 255 bytes without a zero byte")
    elif scheme.startswith("socks5"):
        if not 1 <= len(name) <= 255 or not 1 <= len(password) <= 255:
            raise ValueError("SOCKS 5 takes a name and a password of 1 to 255 bytes each")
    elif b":" in name:
        raise ValueError("a name with a colon can't be told by HTTP")
