"""What the commands that ask a running relay have in common: whom they ask, and two options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from qanat.observe.control_client import ControlClient

__all__ = ["ask", "control_option", "filter_options", "json_option"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def control_option(command: _Command) -> _Command:
    return click.option(
        "--control",
        metavar="PATH",
        envvar="QANAT_CONTROL",
        help="The relay's control socket, when several run.",
    )(command)


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)


def filter_options(command: _Command) -> _Command:
    command = click.option("--client", metavar="IP[:PORT]", help="Only the flows of this client.")(
        command
    )
    return click.option("--endpoint", metavar="NAME", help="Only the flows of this endpoint.")(
        command
    )


def ask(control: str | None) -> ControlClient:
    """A line to the relay behind ``control``, or to the only one that runs."""
    return ControlClient.to(control)
