"""The one table of answers."""

from __future__ import annotations

import errno
import logging

import pytest

from qanat.stack.errors import (
    AuthRequired,
    ConnectError,
    Denied,
    IncompleteRead,
    Kind,
    LimitReached,
    LocalProtocolError,
    PhaseTimeout,
    RemoteProtocolError,
    Shutdown,
    StreamBroken,
    answer_to,
    kind_of_os_error,
)

__all__: list[str] = []


@pytest.mark.parametrize(
    ("error", "reply", "status"),
    [
        (ConnectError("", kind="dns"), 0x04, 502),
        (ConnectError("", kind="host-unreachable"), 0x04, 502),
        (ConnectError("", kind="net-unreachable"), 0x03, 502),
        (ConnectError("", kind="refused"), 0x05, 502),
        (ConnectError("", kind="reset"), 0x05, 502),
        (ConnectError("", kind="timeout"), 0x06, 504),
        (ConnectError("", kind="tls"), 0x01, 502),
        (ConnectError("", kind="denied"), 0x02, 403),
        (ConnectError("", kind="limit"), 0x01, 503),
        (Denied(), 0x02, 403),
        (AuthRequired(), 0x01, 407),
        (LimitReached("x"), 0x01, 503),
        (PhaseTimeout("connect", 5), 0x06, 504),
        (PhaseTimeout("head", 5), 0x01, 408),
        (RemoteProtocolError("x"), 0x01, 400),
        (RemoteProtocolError("x", status=431, reply=0x08), 0x08, 431),
        (IncompleteRead("x"), 0x01, 400),
        (StreamBroken(), 0x01, 502),
        (Shutdown(), 0x01, 503),
    ],
)
def test_errors_of_others_have_no_traceback(error: Exception, reply: int, status: int) -> None:
    answer = answer_to(error)
    assert (answer.socks_reply, answer.http_status) == (reply, status)
    assert not answer.traceback
    assert answer.level < logging.ERROR


@pytest.mark.parametrize("error", [ValueError("x"), LocalProtocolError("x"), OSError(5, "x")])
def test_our_own_mistakes_have_one(error: Exception) -> None:
    answer = answer_to(error)
    assert (answer.socks_reply, answer.http_status) == (0x01, 500)
    assert answer.traceback
    assert answer.level == logging.ERROR


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, "refused"),
        (errno.ENETUNREACH, "net-unreachable"),
        (errno.EHOSTUNREACH, "host-unreachable"),
        (errno.ETIMEDOUT, "timeout"),
        (errno.ECONNRESET, "reset"),
    ],
)
def test_what_the_kernel_says_of_the_way(number: int, kind: Kind) -> None:
    assert kind_of_os_error(OSError(number, "")) == (kind, "transport")


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EMFILE, errno.EACCES, None])
def test_what_is_about_this_machine_alone(number: int | None) -> None:
    error = OSError("x") if number is None else OSError(number, "")
    assert kind_of_os_error(error) == ("local", "local")
