"""Where flows go by what their first bytes show. Pure but for the models' own ways to refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from qanat.config.address import AddressError, HostName, parse_host, parse_remote
from qanat.config.octets import OctetsError, parse_octets
from qanat.config.refusal import refuse
from qanat.config.table import Model

__all__ = ["MOST_BYTES", "Route", "RuleKind", "as_routes", "parse_name_pattern"]

RuleKind = Literal["sni", "host", "bytes"]

MOST_BYTES: Final = 256
"""Of a pattern of first bytes; more than what any protocol begins with."""

_WILDCARD: Final = "*."


def parse_name_pattern(text: str, *, addresses: bool) -> str:
    """``name`` or ``*.name`` in lower case and ASCII, without a dot at the end.

    An address can be a Host, and never a server name in TLS.
    """
    wild = text.startswith(_WILDCARD)
    if "*" in text.removeprefix(_WILDCARD):
        raise AddressError(
            "a * stands for the first part of a name alone",
            "flows that match nothing go to remote" if text == "*" else "as *.example.com",
        )
    host = parse_host(text.removeprefix(_WILDCARD))
    if isinstance(host, HostName):
        name = host.name.removesuffix(".").lower()
        return f"{_WILDCARD}{name}" if wild else name
    if wild or not addresses:
        raise AddressError("an address is not a server name", "a name, as a.example or *.example")
    return f"[{host}]" if host.version == 6 else str(host)


def _name(*, addresses: bool) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            parse_name_pattern(text, addresses=addresses)
        except AddressError as error:
            refuse(str(error), error.hint)
        return text

    return check


def _octets(text: str) -> str:
    try:
        parse_octets(text, MOST_BYTES)
    except OctetsError as error:
        refuse(str(error), error.hint)
    return text


def _remote(text: str) -> str:
    try:
        parse_remote(text)
    except AddressError as error:
        refuse(str(error), error.hint, kind="address")
    return text


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


_List: Final = BeforeValidator(
    _one_or_more, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)]
)
_Sni = Annotated[StrictStr, Field(min_length=1), AfterValidator(_name(addresses=False))]
_Host = Annotated[StrictStr, Field(min_length=1), AfterValidator(_name(addresses=True))]
_Bytes = Annotated[StrictStr, Field(min_length=1), AfterValidator(_octets)]
_Remote = Annotated[StrictStr, AfterValidator(_remote)]


class Route(Model):
    """Flows that show one of these go to remotes of their own; the first route that matches
    counts."""

    sni: Annotated[list[_Sni], Field(min_length=1), _List] = Field(default_factory=list)
    """Server names of TLS, one or a list: `a.example`, or `*.example` for every name that ends so.
    TLS is not ended for that."""

    host: Annotated[list[_Host], Field(min_length=1), _List] = Field(default_factory=list)
    """Hosts of plain HTTP/1 requests, in the same way."""

    bytes: Annotated[list[_Bytes], Field(min_length=1), _List] = Field(default_factory=list)
    """What the client sends first, one or a list: text as `SSH-`, or hexadecimal as `0x1603`."""

    remote: _Remote
    """Where these flows go."""

    extra_remotes: list[_Remote] = Field(default_factory=list)
    """Further remotes for them, which `balance` chooses from."""

    @model_validator(mode="after")
    def _something(self) -> Route:
        if not self.sni and not self.host and not self.bytes:
            refuse("says nothing about the flows it is for", "sni, host or bytes")
        return self

    def remotes(self) -> list[str]:
        return [self.remote, *self.extra_remotes]

    def patterns(self) -> Iterator[tuple[RuleKind, str]]:
        """Kind and pattern as a plan has them."""
        for text in self.sni:
            yield "sni", parse_name_pattern(text, addresses=False)
        for text in self.host:
            yield "host", parse_name_pattern(text, addresses=True)
        for text in self.bytes:
            yield "bytes", parse_octets(text, MOST_BYTES).hex()


def as_routes(value: object) -> object:
    """A list from the short forms: one route alone, or remotes by server name."""
    if not isinstance(value, dict):
        return value
    if not value:
        return []
    table: dict[Any, Any] = value
    if table.keys() & Route.model_fields.keys():
        return [table]
    return [{"sni": [name], "remote": remote} for name, remote in table.items()]
