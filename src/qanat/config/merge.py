"""Precedence: which of several values of one key counts. Pure.

Files of a folder: for each key of a table the first file that gives it wins, endpoints follow one
another. Then an endpoint's own key wins over the same key of the file's ``network`` table, and an
option of the command line wins over both, in every endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

from pydantic import ValidationError

from qanat.config.explain import explain
from qanat.config.models import Config, Dns, Endpoint, Limits, Log, Model, Network
from qanat.config.places import KeyPath, Place
from qanat.errors import ConfigError, Problem

__all__ = ["Overrides", "apply_overrides", "combine", "effective"]

_TABLES: Final[dict[str, type[Model]]] = {
    "log": Log,
    "dns": Dns,
    "network": Network,
    "limits": Limits,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says about keys; ``None`` where it says nothing."""

    use_udp: bool | None = None
    no_tcp: bool | None = None
    ipv6_only: bool | None = None
    mptcp: bool | None = None
    """Both ``send_mptcp`` and ``accept_mptcp``."""
    tcp_timeout: int | None = None
    udp_timeout: int | None = None
    tcp_keepalive: int | None = None
    tcp_keepalive_probe: int | None = None
    send_proxy: bool | None = None
    send_proxy_version: int | None = None
    accept_proxy: bool | Literal["optional"] | None = None
    accept_proxy_timeout: int | None = None
    handshake_timeout: float | None = None
    idle_timeout: float | None = None
    linger: float | None = None
    max_connections: int | None = None
    max_connection_rate: int | None = None
    max_connections_per_client: int | None = None
    max_associations: int | None = None
    log_level: str | None = None
    log_output: str | None = None
    log_format: str | None = None
    dns_mode: str | None = None
    dns_protocol: str | None = None
    dns_servers: Sequence[str] | None = None
    dns_min_ttl: int | None = None
    dns_max_ttl: int | None = None
    dns_cache_size: int | None = None
    workers: int | None = None
    drain: float | None = None
    pipe_page: int | None = None
    metrics: str | None = None
    control: str | bool | None = None


# Where an option's value goes when its name is not that of a key of ``network``.
_ELSEWHERE: Final[dict[str, tuple[KeyPath, ...]]] = {
    "mptcp": (("network", "send_mptcp"), ("network", "accept_mptcp")),
    "log_level": (("log", "level"),),
    "log_output": (("log", "output"),),
    "log_format": (("log", "format"),),
    "dns_mode": (("dns", "mode"),),
    "dns_protocol": (("dns", "protocol"),),
    "dns_servers": (("dns", "nameservers"),),
    "dns_min_ttl": (("dns", "min_ttl"),),
    "dns_max_ttl": (("dns", "max_ttl"),),
    "dns_cache_size": (("dns", "cache_size"),),
    "workers": (("workers",),),
    "drain": (("drain",),),
    "pipe_page": (("pipe_page",),),
    "metrics": (("metrics",),),
    "control": (("control",),),
}
# realm's names of the options that are not those of the keys.
_OPTIONS: Final = {"use_udp": "--udp", "no_tcp": "--ntcp", "ipv6_only": "--ipv6", "mptcp": "--mtcp"}


def combine(parts: Sequence[Config]) -> Config:
    """The configuration of several files, in their order."""
    if len(parts) == 1:
        return parts[0]
    values: dict[str, Any] = {}
    for part in parts:
        for key in part.model_fields_set - _TABLES.keys() - {"endpoints"}:
            values.setdefault(key, getattr(part, key))
    for name, model in _TABLES.items():
        tables = [getattr(part, name) for part in parts if name in part.model_fields_set]
        if tables:
            values[name] = _first_wins(model, tables)
    values["endpoints"] = [endpoint for part in parts for endpoint in part.endpoints]
    return Config.model_construct(**values)


def effective(config: Config) -> Config:
    """The same configuration with each endpoint's ``network`` complete. Twice is as once."""
    common = _given(config.network)
    if not common:
        return config
    endpoints = []
    for endpoint in config.endpoints:
        own = _given(endpoint.network)
        # Most endpoints have no table of their own; they share one object.
        merged = Network.model_construct(**(common | own)) if own else config.network
        endpoints.append(endpoint.model_copy(update={"network": merged}))
    return config.model_copy(update={"endpoints": endpoints})


def apply_overrides(config: Config, overrides: Overrides) -> Config:
    """The configuration as the command line wants it.

    Raises ConfigError, whose keys are the options' names, when a value is not acceptable.
    """
    values, options = _spread(overrides)
    if not values:
        return config
    try:
        wanted = Config.model_validate(values, context={"part": True})
    except ValidationError as error:
        raise ConfigError(_by_option(explain(error, Config, _stay), options)) from None
    updates: dict[str, Any] = {
        name: getattr(wanted, name) for name in wanted.model_fields_set - _TABLES.keys()
    }
    for name, model in _TABLES.items():
        if name in wanted.model_fields_set:
            updates[name] = _first_wins(model, [getattr(wanted, name), getattr(config, name)])
    _check_dns(updates.get("dns"), options)
    if "network" in updates:
        forced = _given(wanted.network)
        updates["endpoints"] = [_forced(endpoint, forced) for endpoint in config.endpoints]
    return config.model_copy(update=updates)


def _first_wins(model: type[Model], tables: Sequence[Model]) -> Model:
    values: dict[str, Any] = {}
    for table in reversed(tables):
        values |= _given(table)
    return model.model_construct(**values)


def _given(table: Model) -> dict[str, Any]:
    return {key: getattr(table, key) for key in table.model_fields_set}


def _forced(endpoint: Endpoint, forced: dict[str, Any]) -> Endpoint:
    """What the endpoint says itself would win over the common table, so it is told here too."""
    own = _given(endpoint.network)
    if own.keys().isdisjoint(forced):
        return endpoint
    told = {key: forced.get(key, value) for key, value in own.items()}
    return endpoint.model_copy(update={"network": Network.model_construct(**told)})


def _spread(overrides: Overrides) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The options' values by key, and the option that each key is from."""
    values: dict[str, Any] = {}
    options: dict[KeyPath, str] = {}
    for field in fields(overrides):
        value = getattr(overrides, field.name)
        if value is None:
            continue
        if field.name == "dns_servers":
            value = list(value)
        for path in _ELSEWHERE.get(field.name, (("network", field.name),)):
            table = values
            for name in path[:-1]:
                table = table.setdefault(str(name), {})
            table[str(path[-1])] = value
            options[path] = _OPTIONS.get(field.name, f"--{field.name.replace('_', '-')}")
    return values, options


def _check_dns(dns: Dns | None, options: dict[KeyPath, str]) -> None:
    """Options and file may each be right and not fit together."""
    if dns is None:
        return
    try:
        Dns.model_validate(_given(dns))
    except ValidationError as error:
        found = [
            replace(problem, key=f"dns.{problem.key}") for problem in explain(error, Dns, _stay)
        ]
        raise ConfigError(_by_option(found, options)) from None


def _by_option(problems: Sequence[Problem], options: dict[KeyPath, str]) -> list[Problem]:
    names = {".".join(str(part) for part in path): option for path, option in options.items()}
    return [
        replace(problem, key=names.get((problem.key or "").partition("[")[0], problem.key))
        for problem in problems
    ]


def _stay(path: KeyPath) -> tuple[KeyPath, Place]:
    return path, Place()
