"""A target to relay to: TCP that echoes until the client has finished."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["echo_server"]


@contextmanager
def echo_server(greeting: bytes = b"") -> Iterator[int]:
    """The port on 127.0.0.1; ``greeting`` comes first and tells one server from another."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        threading.Thread(target=_accept, args=(listener, greeting), daemon=True).start()
        yield listener.getsockname()[1]
        # Closing alone does not wake a thread that is in accept.
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, greeting: bytes) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(client, greeting), daemon=True).start()


def _echo(client: socket.socket, greeting: bytes) -> None:
    with client:
        try:
            client.sendall(greeting)
            while received := client.recv(65_536):
                client.sendall(received)
        except OSError:
            return
