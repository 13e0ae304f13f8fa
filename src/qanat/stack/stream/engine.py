"""Streams that the engine holds: their TLS is the engine's, and so may be the moving of bytes.

Python reads and writes in batches when it wants to look, and hands the stream to ``relay`` when it
has decided.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from qanat.plan import TlsAcceptPlan, TlsConnectPlan, to_json
from qanat.stack.codec.client_hello import hello_of_message
from qanat.stack.courier import Courier, EngineRefused, courier
from qanat.stack.errors import (
    LocalProtocolError,
    PhaseTimeout,
    StackError,
    StreamBroken,
    TlsError,
)
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Tls
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import SocketStream

__all__ = [
    "EngineStream",
    "abort_leg",
    "beginning",
    "note_handshake",
    "shake_as_client",
    "shake_as_server",
]


_BEGUN: Final = frozenset({"connected", "shaken", "failed", "closed"})


class EngineStream(Stream):
    """Over a leg of the engine's desk."""

    __slots__ = ("_courier", "_failed", "_finished", "_leg", "_read_waiter", "_write_waiter")

    def __init__(self, carrier: Courier, leg: int, ext: Extensions | None = None) -> None:
        super().__init__(ext)
        self._courier = carrier
        self._leg: int | None = leg
        self._finished = False
        self._failed: StackError | None = None
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        carrier.watch(leg, self._reported)

    @property
    def closed(self) -> bool:
        return self._leg is None

    def _live(self) -> int:
        if self._failed is not None:
            raise self._failed
        if self._leg is None:
            raise LocalProtocolError("the stream is closed, or was handed to the engine")
        return self._leg

    async def _receive(self, max_bytes: int) -> bytes:
        while True:
            try:
                with self._courier.translated():
                    data = self._courier.desk.read(self._live(), max_bytes)
            except EngineRefused as error:
                raise _meaning(error) from error
            if data is not None:
                return data
            waiter = self._read_waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                self._read_waiter = None

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        if left.itemsize != 1:
            left = left.cast("B")
        while True:
            try:
                with self._courier.translated():
                    left = left[self._courier.desk.write(self._live(), left) :]
            except EngineRefused as error:
                raise _meaning(error) from error
            if not left:
                return
            waiter = self._write_waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                self._write_waiter = None

    async def _send_eof(self) -> None:
        if self._finished:
            return
        self._finished = True
        try:
            with self._courier.translated():
                self._courier.desk.finish(self._live())
        except EngineRefused as error:
            raise _meaning(error) from error

    async def _close(self) -> None:
        leg = self._let_go()
        if leg is not None and not self._courier.closed:
            self._courier.desk.close(leg)

    def abort(self) -> None:
        leg = self._let_go()
        if leg is not None and not self._courier.closed:
            abort_leg(self._courier, leg)

    def take(self) -> tuple[int, bytes]:
        """The leg, for joining it to another, and what was read and put back."""
        if self._reading or self._writing:
            raise LocalProtocolError("a task uses this stream")
        return self._live(), self._unread

    def gone(self) -> None:
        """The leg was joined: it is no longer ours."""
        self._let_go()

    def _let_go(self) -> int | None:
        leg, self._leg = self._leg, None
        self._unread = b""
        if leg is not None:
            self._courier.forget(leg)
            self._wake(StreamBroken("closed by ourselves", reset=False))
        return leg

    def _wake(self, error: StackError | None = None) -> None:
        for waiter in (self._read_waiter, self._write_waiter):
            if waiter is not None and not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    def _reported(self, kind: str, text: str) -> None:
        if kind == "readable":
            if self._read_waiter is not None and not self._read_waiter.done():
                self._read_waiter.set_result(None)
        elif kind == "writable":
            if self._write_waiter is not None and not self._write_waiter.done():
                self._write_waiter.set_result(None)
        elif kind in ("failed", "closed"):
            told: dict[str, Any] = json.loads(text) if text else {}
            self._failed = StreamBroken(
                told.get("text", "the engine has ended"), reset=told.get("code") == "reset"
            )
            self._leg = None
            self._wake(self._failed)

    def __repr__(self) -> str:
        return f"<EngineStream {'closed' if self._leg is None else f'leg={self._leg}'}>"


async def shake_as_server(
    stream: SocketStream | EngineStream, plan: TlsAcceptPlan
) -> tuple[EngineStream, dict[str, Any]]:
    """Hand the stream down for a TLS handshake with a client: the stream of what is inside, and
    what was agreed on, by the names of ``Desk``'s report ``shaken``.

    :raises EngineRefused: the engine can't have the stream, which is as it was.
    :raises TlsError, PhaseTimeout, StreamBroken: the handshake failed, or there is none by such a
        plan; the stream is gone.
    """
    carrier = await courier()
    if isinstance(stream, EngineStream):
        leg, unread = stream.take()
        with carrier.translated():
            carrier.desk.tls_accept(leg, to_json(plan), unread)
        stream.gone()
    else:
        taken = stream.detach()
        try:
            with carrier.translated():
                leg = carrier.desk.adopt(taken.socket.fileno())
        except BaseException:
            stream.reattach(taken)
            raise
        taken.socket.detach()
        with _or_aborted(carrier, leg):
            carrier.desk.tls_accept(leg, to_json(plan), taken.unread)
    return await _shaken(carrier, leg, stream.ext, plan.handshake_timeout)


async def shake_as_client(
    stream: SocketStream | EngineStream, plan: TlsConnectPlan
) -> tuple[EngineStream, dict[str, Any]]:
    """The same with a target. There must be nothing that was read and put back."""
    carrier = await courier()
    if isinstance(stream, EngineStream):
        leg, unread = stream.take()
        if unread:
            raise LocalProtocolError("a target spoke before its TLS handshake")
        with carrier.translated():
            carrier.desk.tls_connect(leg, to_json(plan))
        stream.gone()
    else:
        taken = stream.detach()
        if taken.unread:
            stream.reattach(taken)
            raise LocalProtocolError("a target spoke before its TLS handshake")
        try:
            with carrier.translated():
                leg = carrier.desk.adopt(taken.socket.fileno())
        except BaseException:
            stream.reattach(taken)
            raise
        taken.socket.detach()
        with _or_aborted(carrier, leg):
            carrier.desk.tls_connect(leg, to_json(plan))
    return await _shaken(carrier, leg, stream.ext, plan.handshake_timeout)


def note_handshake(ext: Extensions, told: Mapping[str, Any]) -> None:
    """Put what a report says of a handshake into the facts of its stream."""
    hello = None
    if told.get("hello"):
        # The engine has understood it, so it is one; who fails here finds a bug of ours.
        hello = hello_of_message(bytes.fromhex(told["hello"]))
        ext.insert(hello)
    ext.insert(
        Tls(
            version=told.get("version") or "",
            cipher=told.get("cipher") or "",
            alpn=told.get("alpn"),
            server_name=told.get("sni"),
            certificate=told.get("client_certificate"),
            ja4=None if hello is None else hello.ja4,
        )
    )


@contextmanager
def _or_aborted(carrier: Courier, leg: int) -> Iterator[None]:
    """For a leg that has no stream yet: a socket does not come back from the engine."""
    try:
        with carrier.translated():
            yield
    except EngineRefused as error:
        abort_leg(carrier, leg)
        raise TlsError(str(error)) from error


def abort_leg(carrier: Courier, leg: int) -> None:
    """Reset it, whatever its state."""
    # Refused means that the leg has ended by itself.
    with suppress(EngineRefused), carrier.translated():
        carrier.desk.abort(leg)


async def beginning(carrier: Courier, leg: int) -> tuple[str, dict[str, Any]]:
    """What comes of a leg that is being connected or shakes hands: the kind of the report, and what
    it says. Who does not wait for it aborts the leg."""
    waiter: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    def reported(kind: str, text: str) -> None:
        if kind in _BEGUN and not waiter.done():
            waiter.set_result((kind, text))

    carrier.watch(leg, reported)
    try:
        kind, text = await waiter
    except asyncio.CancelledError:
        carrier.forget(leg)
        abort_leg(carrier, leg)
        raise
    if kind in ("failed", "closed"):
        carrier.forget(leg)
    return kind, json.loads(text) if text else {}


async def _shaken(
    carrier: Courier, leg: int, ext: Extensions, seconds: float
) -> tuple[EngineStream, dict[str, Any]]:
    kind, told = await beginning(carrier, leg)
    if kind == "shaken":
        return EngineStream(carrier, leg, ext), told
    code, said = told.get("code", "closed"), told.get("text", "the engine has ended")
    if code == "handshake_timeout":
        raise PhaseTimeout("tls-handshake", seconds)
    if code in ("reset", "broken", "closed"):
        raise StreamBroken(said, reset=code == "reset")
    raise TlsError(said)


def _meaning(error: EngineRefused) -> StackError:
    if error.code in ("reset", "broken"):
        return StreamBroken(str(error), reset=error.code == "reset")
    if error.code == "tls":
        return TlsError(str(error))
    return StreamBroken(str(error), reset=False)
