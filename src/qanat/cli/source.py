"""Where the configuration of one start line comes from, and how it is read again for a reload.

The first of these that is there: ``REALM_CONF``, ``-c``, ``-l`` with ``-r``, the quick start. The
options that stand above a configuration are applied to whichever it is. Imports the models only
when a line is known to be right so far.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qanat.cli.options import OVERRIDES, WITH_FILE_IGNORED
from qanat.cli.output import notice
from qanat.cli.strict import shown
from qanat.errors import ConfigError, Problem

if TYPE_CHECKING:
    from qanat.config.load import Loaded
    from qanat.config.merge import Overrides
    from qanat.config.models import Endpoint

__all__ = ["CONFIG_VARIABLE", "Source", "choose", "located"]

CONFIG_VARIABLE = "REALM_CONF"

Given = Mapping[str, Any]

# Keys whose options have other names than they.
_OPTIONS = {
    "send_mptcp": "mtcp",
    "accept_mptcp": "mtcp",
    "dns.nameservers": "dns_servers",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration that can be read whenever it is wanted."""

    read: Callable[[], Loaded]
    paths: list[Path]
    """The files it is from; empty if it is from none."""
    option: Callable[[str], str] | None = None
    """The option that a key of the configuration is from, if it is from the line alone."""

    def is_line(self, problems: Sequence[Problem]) -> bool:
        """Whether options alone are wrong, and not what a file says."""
        return all(
            problem.file is None and (problem.key or "").startswith("-") for problem in problems
        )

    def named(self, problems: Sequence[Problem], loaded: Loaded) -> list[Problem]:
        """Problems in the words of whoever wrote the configuration."""
        if self.option is None:
            return located(problems, loaded)
        return [
            dataclasses.replace(problem, key=problem.key and self.option(problem.key))
            for problem in problems
        ]


def located(problems: Sequence[Problem], loaded: Loaded) -> list[Problem]:
    """Problems that were found after loading, with the place of the key in its file."""
    return [_located(problem, loaded) for problem in problems]


def _located(problem: Problem, loaded: Loaded) -> Problem:
    if problem.key is None or problem.file is not None:
        return problem
    from qanat.config.places import dotted

    path = tuple(
        int(number) if number else name
        for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", problem.key)
    )
    written, place = loaded.origins.locate(path)
    return dataclasses.replace(
        problem,
        key=dotted(written),
        file=place.file,
        line=place.line,
        column=place.column,
    )


def choose(ctx: click.Context, given: Given) -> Source:
    """The source that the line and the environment ask for; a UsageError if there is none."""
    described = [name for name in WITH_FILE_IGNORED if given[name]]
    text = os.environ.get(CONFIG_VARIABLE)
    overrides = _overrides(given)
    if given["quick_start"]:
        for name in ("config", *described):
            if given[name]:
                raise click.UsageError(f"--quick-start excludes {shown(ctx, name)}", ctx=ctx)
        return _from_line(ctx, (), overrides)
    if text:
        for name in ("config", *described):
            if given[name]:
                notice(f"{shown(ctx, name)} is ignored: {CONFIG_VARIABLE} is set")
        return _loading(overrides, [], text=text, name=CONFIG_VARIABLE)
    if given["config"] is not None:
        for name in described:
            notice(f"{shown(ctx, name)} is ignored: -c is given")
        path = given["config"]
        return _loading(overrides, [Path(path)], path=path)
    _check_pairs(ctx, given)
    return _from_line(ctx, _endpoints(ctx, given), overrides)


def _overrides(given: Given) -> Overrides:
    from qanat.config.merge import Overrides

    said = {name: given[name] for name in OVERRIDES}
    # A flag that is not given says nothing; it does not say "no".
    values = {name: value for name, value in said.items() if value is not None}
    values = {name: value for name, value in values.items() if value is not False}
    for name in ("send_proxy", "accept_proxy"):
        if given[name] is not None:
            values[name] = {"true": True, "false": False}.get(given[name], given[name])
    if given["mtcp"]:
        values["mptcp"] = True
    if values.get("pipe_page") == 0:
        del values["pipe_page"]
    if given["control"] is not None:
        values["control"] = False if given["control"] == "off" else given["control"]
    return Overrides(**values)


def _loading(overrides: Overrides, paths: list[Path], **what: str) -> Source:
    from qanat.config.load import load

    return Source(lambda: load(**what, overrides=overrides), paths)


def _check_pairs(ctx: click.Context, given: Given) -> None:
    listen, remote = given["listen"], given["remote"]
    for name in ("listen", "remote"):
        if not given[name]:
            raise click.UsageError(
                f"{shown(ctx, name)} is missing: give -c, or -l with -r", ctx=ctx
            )
    if len(listen) != len(remote):
        raise click.UsageError(
            f"{len(listen)} x -l but {len(remote)} x -r: each -l needs its own -r", ctx=ctx
        )


def _endpoints(ctx: click.Context, given: Given) -> list[Endpoint]:
    from qanat.config.models import Endpoint

    endpoints = []
    wrong = []
    for listen, remote in zip(given["listen"], given["remote"], strict=True):
        try:
            endpoint = Endpoint(
                listen=listen,
                remote=remote,
                through=given["through"],
                interface=given["interface"],
                listen_interface=given["listen_interface"],
                listen_transport=given["listen_transport"],
                remote_transport=given["remote_transport"],
            )
        except ConfigError as error:
            wrong += [_invalid(ctx, problem) for problem in error.problems]
        else:
            endpoints.append(endpoint)
    if wrong:
        # A wrong -x is found again with each pair.
        raise click.UsageError("\n".join(dict.fromkeys(wrong)), ctx=ctx)
    return endpoints


def _invalid(ctx: click.Context, problem: Problem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    name = shown(ctx, problem.key or "")
    return f"invalid value for {name}: '{problem.value}': {problem.message}{hint}"


def _from_line(ctx: click.Context, endpoints: Sequence[Endpoint], overrides: Overrides) -> Source:
    """A configuration that is the same whenever it is read."""

    def read() -> Loaded:
        from qanat.config.checks import check
        from qanat.config.load import Loaded
        from qanat.config.merge import apply_overrides, effective
        from qanat.config.models import Config
        from qanat.config.origins import Origins

        config = apply_overrides(Config(endpoints=list(endpoints)), overrides)
        loaded = Loaded(config=config, warnings=[], files=[])
        found = source.named(check(effective(config), Origins()), loaded)
        if any(problem.severity == "error" for problem in found):
            raise ConfigError(found)
        return dataclasses.replace(loaded, warnings=found)

    source = Source(read, [], lambda key: _option(ctx, key))
    return source


def _option(ctx: click.Context, key: str) -> str:
    """``-l/--listen`` for ``endpoints[0].listen``; the key itself if no option has it."""
    plain = re.sub(r"\[\d+\]", "", key).removeprefix("endpoints.").removeprefix("network.")
    name = _OPTIONS.get(plain, plain.replace(".", "_"))
    option = shown(ctx, name)
    return key if option == name else option
