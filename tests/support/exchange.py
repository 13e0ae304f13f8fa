"""Exchanges over one connection in which each byte is known in advance: what arrives is compared
at its place in the stream, so that a fault shows whatever else happens to the connection.

Run as a program it is a target: ``exchange.py HOST PORT COMPLAINTS``. Each connection begins with a
line that says what the client is going to do and wants done.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

__all__ = ["Order", "Outcome", "carry_out", "listen"]

_BLOCK = random.Random(20).randbytes(1 << 20)
_TWICE = _BLOCK + _BLOCK
_CHUNK = 1 << 16
_PATIENCE = 60.0

Fault = Literal["none", "client_reset", "target_reset", "slow_client", "slow_target"]


@dataclass(frozen=True)
class Order:
    """What one exchange is."""

    up: int
    """Bytes from the client."""
    down: int
    """Bytes from the target."""
    seed: int
    fault: Fault
    whole: bool
    """Whether nothing may be missing; otherwise the beginning has to be right."""

    _FORMAT = ">IIIB?"

    def encode(self) -> bytes:
        faults = Fault.__args__  # type: ignore[attr-defined]
        return struct.pack(
            self._FORMAT, self.up, self.down, self.seed, faults.index(self.fault), self.whole
        )

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        up, down, seed, fault, whole = struct.unpack(cls._FORMAT, encoded)
        faults = Fault.__args__  # type: ignore[attr-defined]
        return cls(up, down, seed, faults[fault], whole)

    @classmethod
    def length(cls) -> int:
        return struct.calcsize(cls._FORMAT)


@dataclass
class Outcome:
    heard: int = 0
    wrong_at: int | None = None
    """Where the first wrong byte was."""
    orderly: bool = False
    """Whether the other side's end came as an end."""

    def complaint(self, order: Order, wanted: int) -> str:
        """What is wrong with it, or nothing."""
        if self.wrong_at is not None:
            return f"{order}: a wrong byte near {self.wrong_at}"
        if self.heard > wanted:
            return f"{order}: {self.heard} bytes, which are too many"
        if order.whole and (self.heard < wanted or not self.orderly):
            return f"{order}: {self.heard} of {wanted} bytes, orderly end: {self.orderly}"
        return ""


def carry_out(sock: socket.socket, order: Order, *, is_client: bool) -> Outcome:
    """One side of the exchange, both directions at once. Closes the socket."""
    sock.settimeout(_PATIENCE)
    me, peer = ("client", "target") if is_client else ("target", "client")
    mine, wanted = (order.up, order.down) if is_client else (order.down, order.up)
    resets = order.fault == f"{me}_reset"
    slow = order.fault == f"slow_{me}"
    sending = threading.Thread(
        target=_send, args=(sock, mine // 2 if resets else mine, _seed(order, me), resets)
    )
    sending.start()
    outcome = _hear(sock, wanted, _seed(order, peer), slow)
    sending.join()
    if resets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    return outcome


def _seed(order: Order, side: str) -> int:
    return (order.seed * 2 + (side == "client")) * 7919 % len(_BLOCK)


def _expected(seed: int, at: int, length: int) -> bytes:
    begin = (seed + at) % len(_BLOCK)
    return _TWICE[begin : begin + length]


def _send(sock: socket.socket, length: int, seed: int, resets: bool) -> None:
    sent = 0
    try:
        while sent < length:
            sent += sock.send(_expected(seed, sent, min(_CHUNK, length - sent)))
        # Who resets stops hearing too.
        sock.shutdown(socket.SHUT_RDWR if resets else socket.SHUT_WR)
    except OSError:
        return


def _hear(sock: socket.socket, wanted: int, seed: int, slow: bool) -> Outcome:
    outcome = Outcome()
    pauses = 10 if slow else 0
    while True:
        try:
            piece = sock.recv(_CHUNK)
        except OSError:
            return outcome
        if not piece:
            outcome.orderly = True
            return outcome
        if outcome.wrong_at is None and piece != _expected(seed, outcome.heard, len(piece)):
            outcome.wrong_at = outcome.heard
        outcome.heard += len(piece)
        if pauses:
            pauses -= 1
            time.sleep(0.02)


def listen(host: str, port: int, complaints: Path) -> None:
    """Serve for ever; what is wrong is appended to the file."""
    listener = socket.create_server((host, port), backlog=1024)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve, args=(sock, complaints), daemon=True).start()


def _serve(sock: socket.socket, complaints: Path) -> None:
    sock.settimeout(_PATIENCE)
    head = b""
    while len(head) < Order.length():
        try:
            piece = sock.recv(Order.length() - len(head))
        except OSError:
            piece = b""
        if not piece:
            sock.close()
            return
        head += piece
    order = Order.decode(head)
    complaint = carry_out(sock, order, is_client=False).complaint(order, order.up)
    if complaint:
        with complaints.open("a") as file:
            file.write(f"target: {complaint}\n")


if __name__ == "__main__":
    listen(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
