"""One line for each connection: who, where to, how much, how long, and why it ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Generic, TypeVar

from qanat.errors import QanatError
from qanat.stack.facts import Client, Listener, Peer, Target, Tls, User
from qanat.stack.relaying import RelayReport
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["AccessLog"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Writes a line when the connection ends, also when it is cut. The fields are in the record's
    ``fields`` for those who want them as values."""

    logger: str = "qanat.access"
    level: int = logging.INFO

    def __call__(self, inner: Service[Stream, Out], /) -> Service[Stream, Out]:
        return _Logged(logging.getLogger(self.logger), self.level, inner)


@dataclass(frozen=True, slots=True)
class _Logged(Generic[Out]):
    logger: logging.Logger
    level: int
    inner: Service[Stream, Out]

    async def __call__(self, stream: Stream, /) -> Out:
        if not self.logger.isEnabledFor(self.level):
            return await self.inner(stream)
        loop = asyncio.get_running_loop()
        began, report, reason, detail = loop.time(), None, "done", None
        try:
            result = await self.inner(stream)
            if isinstance(result, RelayReport):
                report = result
                reason, detail = result.reason, result.detail
            return result
        except asyncio.CancelledError:
            reason = "cut"
            raise
        except QanatError as error:
            reason, detail = error.code, str(error)
            raise
        except Exception as error:
            reason, detail = "error", type(error).__name__
            raise
        finally:
            self._write(stream, loop.time() - began, report, reason, detail)

    def _write(
        self,
        stream: Stream,
        seconds: float,
        report: RelayReport | None,
        reason: str,
        detail: str | None,
    ) -> None:
        ext = stream.ext
        source, listener = ext.get(Client) or ext.get(Peer), ext.get(Listener)
        target, user, tls = ext.get(Target), ext.get(User), ext.get(Tls)
        fields = {
            "endpoint": None if listener is None else listener.name or str(listener.address),
            "client": None if source is None else str(source.address),
            "user": None if user is None else user.name,
            "target": None if target is None else str(target.address),
            "bytes_up": None if report is None else report.bytes_up,
            "bytes_down": None if report is None else report.bytes_down,
            "duration": seconds,
            "reason": reason,
            "detail": detail,
            "sni": None if tls is None else tls.server_name,
        }
        self.logger.log(
            self.level, "connection ended", extra={"fields": fields, "show_fields": True}
        )
