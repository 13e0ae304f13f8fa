"""The kinds of single values that keys have: their types, their ranges, and how they are checked.

Values stay as they were written, with the exception of amounts, which become numbers of bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from qanat.config import address
from qanat.config.balancing import BalanceError, parse_balance
from qanat.config.dns_servers import SecureNameServer, parse_server
from qanat.config.health_check import Check
from qanat.config.hook_name import HookNameError, parse_hook
from qanat.config.networks import parse_network
from qanat.config.quantities import LARGEST, QuantityError, parse_rate, parse_size
from qanat.config.refusal import refuse
from qanat.config.routes import Route
from qanat.config.unbuilt import needs

__all__ = [
    "HIGHEST",
    "HIGHEST_KEEPALIVE",
    "HIGHEST_PIPE_PAGE",
    "HIGHEST_PROBES",
    "AcceptProxy",
    "AccessList",
    "BalanceText",
    "Count",
    "Device",
    "Failover",
    "Flag",
    "HealthCheck",
    "Hook",
    "Label",
    "Listen",
    "NameServer",
    "OnePort",
    "Quota",
    "Rate",
    "Remote",
    "Routes",
    "Seconds",
    "SendProxy",
    "SendProxyUdp",
    "Text",
    "Through",
    "TrustedList",
    "WholeSeconds",
]

# The kernel's limits for TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT; beyond them: EINVAL.
HIGHEST_KEEPALIVE: Final = 32_767
HIGHEST_PROBES: Final = 127
HIGHEST: Final = 2**32 - 1
HIGHEST_PIPE_PAGE: Final = 2**19  # 2 GiB in pages of 4 KiB: the kernel's own limit for one pipe


def _address(parse: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            parse(text)
        except address.AddressError as error:
            refuse(str(error), error.hint, kind="address")
        return text

    return check


def _one_port(text: str) -> address.ListenAddress:
    parsed = address.parse_listen(text)
    if len(parsed.ports) > 1:
        raise address.AddressError("one port is wanted here", str(parsed).partition("-")[0])
    return parsed


def _name_server(text: str) -> str:
    try:
        server = parse_server(text)
    except address.AddressError as error:
        refuse(str(error), error.hint, kind="address")
    if isinstance(server, SecureNameServer):
        needs("encrypted_dns", "a plain name server, as 192.0.2.53")
    return text


def _label(text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable():
        refuse("a name needs printable characters, without blanks around them")
    return text


def _balance(text: str) -> str:
    try:
        balancing = parse_balance(text)
    except BalanceError as error:
        refuse(str(error), error.hint)
    if balancing.strategy != "off":
        needs("balance", 'flows go to remote alone with "off"')
    return text


def _hook(text: str) -> str:
    try:
        parse_hook(text)
    except HookNameError as error:
        refuse(str(error), error.hint)
    needs("hooks")
    return text


def _amount(parse: Callable[[str], int]) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except QuantityError as error:
            refuse(str(error), error.hint)

    return BeforeValidator(read)


def _asks(feature: str) -> AfterValidator:
    """For values of which the false and empty ones ask for nothing."""

    def check(value: Any) -> Any:
        if value:
            needs(feature)
        return value

    return AfterValidator(check)


def _no_number(value: object) -> object:
    # To Python 1 is as good as True.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check(value: Check) -> Check:
    if value.kind != "off":
        needs("check")
    return value


_AMOUNT_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": LARGEST}, {"type": "string"}]
}
_Network = Annotated[StrictStr, AfterValidator(_address(parse_network))]

Flag = StrictBool
Text = Annotated[StrictStr, Field(min_length=1)]
Label = Annotated[StrictStr, Field(min_length=1, max_length=100), AfterValidator(_label)]
Count = Annotated[StrictInt, Field(ge=0, le=HIGHEST)]
WholeSeconds = Annotated[StrictInt, Field(ge=0, le=HIGHEST)]
Seconds = Annotated[StrictFloat, Field(ge=0, le=HIGHEST, allow_inf_nan=False)]
Listen = Annotated[StrictStr, AfterValidator(_address(address.parse_listen))]
Remote = Annotated[StrictStr, AfterValidator(_address(address.parse_remote))]
Through = Annotated[StrictStr, AfterValidator(_address(address.parse_through))]
NameServer = Annotated[StrictStr, AfterValidator(_name_server)]
Device = Annotated[StrictStr, AfterValidator(_address(address.parse_interface))]
OnePort = Annotated[StrictStr, AfterValidator(_address(_one_port))]
BalanceText = Annotated[StrictStr, AfterValidator(_balance)]
Failover = Annotated[StrictBool, _asks("failover")]
HealthCheck = Annotated[Check, AfterValidator(_check)]
Routes = Annotated[list[Route], _asks("route")]
AccessList = Annotated[list[_Network], _asks("access")]
TrustedList = Annotated[list[_Network], _asks("proxy_in")]
AcceptProxy = Annotated[
    Literal[True, False, "optional"], _asks("proxy_in"), BeforeValidator(_no_number)
]
SendProxy = Annotated[StrictBool, _asks("proxy_out")]
SendProxyUdp = Annotated[StrictBool, _asks("proxy_udp")]
Hook = Annotated[StrictStr, AfterValidator(_hook)]
Rate = Annotated[
    StrictInt,
    Field(ge=0, le=LARGEST),
    _asks("rates"),
    _amount(parse_rate),
    WithJsonSchema(_AMOUNT_SCHEMA),
]
Quota = Annotated[
    StrictInt,
    Field(ge=0, le=LARGEST),
    _asks("quota"),
    _amount(parse_size),
    WithJsonSchema(_AMOUNT_SCHEMA),
]
