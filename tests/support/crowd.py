"""Thousands of clients, and the target that echoes to them, as two processes beside the test: one
process may not have as many descriptors as both sides of a large relay need.

Run as a program it is one of the two: ``crowd.py serve HOST`` or ``crowd.py clients``. The clients
take orders as JSON, one a line, and answer each with a line.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["Crowd", "crowd", "echo_process"]

_PATIENCE = 30.0

Address = tuple[str, int]


class Crowd:
    """The clients' process, at the other end of a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def open(self, addresses: Sequence[Address], count: int) -> int:
        """So many more connections, to the addresses in turn; how many were made."""
        return self._ask({"do": "open", "to": addresses, "count": count})

    def talk(self, size: int = 16) -> int:
        """Each says something of its own; how many heard just that."""
        return self._ask({"do": "talk", "size": size})

    def close(self, count: int | None = None) -> int:
        """Close so many, or all; how many are left."""
        return self._ask({"do": "close", "count": count})

    def _ask(self, order: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def crowd(before: Sequence[str] = ()) -> Iterator[Crowd]:
    with _running("clients", before=before) as process:
        yield Crowd(process)


@contextmanager
def echo_process(host: str = "127.0.0.1", before: Sequence[str] = ()) -> Iterator[str]:
    """A target that echoes, as a process of its own: its ``host:port``."""
    with _running("serve", host, before=before) as process:
        assert process.stdout is not None
        yield f"{host}:{int(process.stdout.readline())}"


@contextmanager
def _running(*words: str, before: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*before, sys.executable, __file__, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _serve(host: str) -> None:
    listener = socket.create_server((host, 0), backlog=4096)
    _say(listener.getsockname()[1])
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    taken: dict[int, socket.socket] = {}
    while True:
        for number, _ in epoll.poll():
            if number == listener.fileno():
                sock, _ = listener.accept()
                taken[sock.fileno()] = sock
                epoll.register(sock, select.EPOLLIN)
                continue
            try:
                said = taken[number].recv(1 << 16)
                if said:
                    taken[number].sendall(said)
                    continue
            except OSError:
                pass
            epoll.unregister(number)
            taken.pop(number).close()


def _clients() -> None:
    socks: list[socket.socket] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "open":
            fresh = _open([tuple(address) for address in order["to"]], order["count"])
            socks += fresh
            _say(len(fresh))
        elif order["do"] == "talk":
            _say(_talk(socks, order["size"]))
        else:
            count = len(socks) if order["count"] is None else order["count"]
            for sock in socks[:count]:
                sock.close()
            del socks[:count]
            _say(len(socks))


def _open(addresses: list[Address], count: int) -> list[socket.socket]:
    made = []
    for number in range(count):
        sock = socket.socket()
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(addresses[number % len(addresses)])
        except OSError:
            sock.close()
            continue
        made.append(sock)
    return made


def _talk(socks: list[socket.socket], size: int) -> int:
    said = {}
    for sock in socks:
        words = os.urandom(size)
        try:
            sock.sendall(words)
        except OSError:
            continue
        said[sock] = words
    good = 0
    deadline = time.monotonic() + _PATIENCE
    for sock, words in said.items():
        heard = b""
        try:
            while len(heard) < size and time.monotonic() < deadline:
                piece = sock.recv(size - len(heard))
                if not piece:
                    break
                heard += piece
        except OSError:
            continue
        good += heard == words
    return good


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        _clients()
