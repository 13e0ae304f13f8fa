"""What can go wrong with a flow, and the one table of how each is answered.

Each error says whose fault it is and in which phase; it is turned into a SOCKS reply, an HTTP
status or a log level in one place, :func:`answer_to`. Cancellation is never one of these.
"""

from __future__ import annotations

import errno as numbers
import logging
from dataclasses import dataclass
from typing import Literal

from qanat.errors import QanatError

__all__ = [
    "Answer",
    "AuthRequired",
    "ConcurrentUse",
    "ConnectError",
    "Denied",
    "Domain",
    "HalfCloseUnsupported",
    "IncompleteRead",
    "Kind",
    "LimitReached",
    "LocalProtocolError",
    "PhaseTimeout",
    "ProtocolError",
    "RemoteProtocolError",
    "Shutdown",
    "StackError",
    "StreamBroken",
    "TlsError",
    "answer_to",
    "kind_of_errno",
    "kind_of_os_error",
]

Kind = Literal[
    "dns",
    "refused",
    "net-unreachable",
    "host-unreachable",
    "reset",
    "timeout",
    "tls",
    "proxy-auth",
    "proxy-reply",
    "denied",
    "limit",
    "local",
]
"""Why a connection was not made."""

Domain = Literal["transport", "application", "local"]
"""Where it failed. Another route may be tried for ``transport`` alone."""


class StackError(QanatError):
    """The root of what services and streams raise on purpose."""

    def __init__(self, message: str, *, code: str = "stack") -> None:
        super().__init__(message, code=code)


class ConnectError(StackError):
    """The target was not reached."""

    def __init__(
        self,
        message: str,
        *,
        kind: Kind,
        domain: Domain = "transport",
        target: str | None = None,
        attempts: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, code=f"connect-{kind}")
        self.kind: Kind = kind
        self.domain: Domain = domain
        self.target = target
        self.attempts = attempts
        """A sentence for each address that was tried."""


class ProtocolError(StackError):
    """Somebody broke the rules of a protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer did. ``status`` and ``reply`` say how to answer, when there is a way."""

    def __init__(self, message: str, *, status: int = 400, reply: int = 0x01) -> None:
        super().__init__(message, code="remote-protocol")
        self.status = status
        """HTTP status."""
        self.reply = reply
        """SOCKS5 reply."""


class LocalProtocolError(ProtocolError):
    """We did: a mistake in a service or in its use."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="local-protocol")


class TlsError(StackError):
    """A handshake or a record failed; ``alert`` is the name of the alert when there is one."""

    def __init__(self, message: str, *, alert: str | None = None) -> None:
        super().__init__(message, code="tls")
        self.alert = alert


class Denied(StackError):
    """A rule says no."""

    def __init__(self, message: str = "denied by policy") -> None:
        super().__init__(message, code="denied")


class AuthRequired(StackError):
    """No credentials, or wrong ones."""

    def __init__(self, message: str = "authentication required") -> None:
        super().__init__(message, code="auth-required")


class LimitReached(StackError):
    """Too many; ``retry_after`` in seconds when it is known."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, code="limit")
        self.retry_after = retry_after


class PhaseTimeout(StackError):
    """A phase took too long, and which one it was."""

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"{phase} timed out after {seconds:g} s", code=f"timeout-{phase}")
        self.phase = phase
        self.seconds = seconds


class StreamBroken(StackError):
    """The peer reset the stream, or it failed in another way; ``reset`` tells which."""

    def __init__(self, message: str = "connection reset by peer", *, reset: bool = True) -> None:
        super().__init__(message, code="reset" if reset else "broken")
        self.reset = reset


class IncompleteRead(StackError):
    """The stream ended in the middle of something."""

    def __init__(self, message: str, *, partial: bytes = b"") -> None:
        super().__init__(message, code="incomplete")
        self.partial = partial


class ConcurrentUse(StackError):
    """Two tasks read, or two tasks write, one stream: a mistake in a service."""

    def __init__(self, what: str) -> None:
        super().__init__(f"another task is {what} this stream already", code="concurrent-use")


class HalfCloseUnsupported(StackError):
    """The stream can't end one direction and keep the other."""

    def __init__(self) -> None:
        super().__init__("this stream can't be half-closed", code="half-close")


class Shutdown(StackError):
    """The server ends."""

    def __init__(self, message: str = "shutting down") -> None:
        super().__init__(message, code="shutdown")


@dataclass(frozen=True, slots=True)
class Answer:
    """How an error is told to those who asked, and to those who read logs."""

    socks_reply: int
    http_status: int
    level: int
    """A level of ``logging``."""
    traceback: bool = False
    """Whether the log gets one: for our own mistakes alone."""


_CONNECT: dict[Kind, Answer] = {
    "dns": Answer(0x04, 502, logging.INFO),
    "host-unreachable": Answer(0x04, 502, logging.INFO),
    "net-unreachable": Answer(0x03, 502, logging.INFO),
    "refused": Answer(0x05, 502, logging.INFO),
    "reset": Answer(0x05, 502, logging.INFO),
    "timeout": Answer(0x06, 504, logging.INFO),
    "tls": Answer(0x01, 502, logging.WARNING),
    "proxy-auth": Answer(0x01, 502, logging.WARNING),
    "proxy-reply": Answer(0x01, 502, logging.INFO),
    "denied": Answer(0x02, 403, logging.INFO),
    "limit": Answer(0x01, 503, logging.INFO),
    "local": Answer(0x01, 502, logging.WARNING),
}


def answer_to(error: BaseException) -> Answer:
    """The one table. What is not in it is our own mistake."""
    match error:
        case ConnectError():
            return _CONNECT[error.kind]
        case Denied():
            return Answer(0x02, 403, logging.INFO)
        case AuthRequired():
            return Answer(0x01, 407, logging.INFO)
        case LimitReached():
            return Answer(0x01, 503, logging.INFO)
        case PhaseTimeout():
            if error.phase == "connect":
                return _CONNECT["timeout"]
            return Answer(0x01, 408, logging.INFO)
        case RemoteProtocolError():
            return Answer(error.reply, error.status, logging.DEBUG)
        case IncompleteRead():
            return Answer(0x01, 400, logging.DEBUG)
        case StreamBroken():
            return Answer(0x01, 502, logging.DEBUG)
        case TlsError():
            return Answer(0x01, 502, logging.INFO)
        case Shutdown():
            return Answer(0x01, 503, logging.INFO)
        case _:
            return Answer(0x01, 500, logging.ERROR, traceback=True)


_OS_KINDS: dict[int, Kind] = {
    numbers.ECONNREFUSED: "refused",
    numbers.ENETUNREACH: "net-unreachable",
    numbers.ENETDOWN: "net-unreachable",
    numbers.EHOSTUNREACH: "host-unreachable",
    numbers.EHOSTDOWN: "host-unreachable",
    numbers.ECONNRESET: "reset",
    numbers.ECONNABORTED: "reset",
    numbers.ETIMEDOUT: "timeout",
}


def kind_of_os_error(error: OSError) -> tuple[Kind, Domain]:
    """What an error of ``connect`` means; one that comes from this machine is ``local``."""
    return kind_of_errno(error.errno or 0)


def kind_of_errno(number: int) -> tuple[Kind, Domain]:
    """The same of its number."""
    kind = _OS_KINDS.get(number)
    return ("local", "local") if kind is None else (kind, "transport")
