"""A name server behind TLS: DNS over TLS, or over HTTPS for those who offer HTTP/2.

It has one address for every name. Of HTTP/2 it knows what one client needs that asks one thing
after the other: no header of a request is looked at.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

__all__ = ["SecureNameServer", "secure_name_server"]

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END, _ACK, _END_HEADERS = 1, 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# ":status: 200" of the static table, then "content-type" of it with a text.
_TYPE = b"application/dns-message"
_GOOD = b"\x88\x0f\x10" + bytes([len(_TYPE)]) + _TYPE


class SecureNameServer:
    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self.port = port
        self.asked: list[str] = []
        """By which protocol each question came: ``dot`` or ``doh``."""

    def serve(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._client, args=(accepted, context), daemon=True).start()

    def _client(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        # Clients come and go as they like, and one that does not trust us is what a test wants.
        with suppress(OSError, EOFError), accepted:
            accepted.settimeout(20)
            with context.wrap_socket(accepted, server_side=True) as stream:
                if stream.selected_alpn_protocol() == "h2":
                    self._http(stream)
                else:
                    self._plain(stream)

    def _plain(self, stream: ssl.SSLSocket) -> None:
        while True:
            (length,) = struct.unpack(">H", _exactly(stream, 2))
            answer = self._answer(_exactly(stream, length), "dot")
            stream.sendall(struct.pack(">H", len(answer)) + answer)

    def _http(self, stream: ssl.SSLSocket) -> None:
        if _exactly(stream, len(_PREFACE)) != _PREFACE:
            return
        stream.sendall(_frame(_SETTINGS, 0, 0, b""))
        questions: dict[int, bytes] = {}
        while True:
            head = _exactly(stream, 9)
            payload = _exactly(stream, int.from_bytes(head[:3], "big"))
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                stream.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            if kind == _DATA:
                questions[number] = questions.get(number, b"") + payload
                if flags & _END:
                    answer = self._answer(questions.pop(number), "doh")
                    stream.sendall(_frame(_HEADERS, _END_HEADERS, number, _GOOD))
                    stream.sendall(_frame(_DATA, _END, number, answer))

    def _answer(self, question: bytes, way: str) -> bytes:
        self.asked.append(way)
        end = question.index(b"\0", 12) + 5
        (kind,) = struct.unpack(">H", question[end - 4 : end - 2])
        found = kind == 1
        head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, found, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + ip_address(self._address).packed
        answer: bytes = head + question[12:end] + record * found
        return answer


@contextmanager
def secure_name_server(address: str, cert: Path, key: Path) -> Iterator[SecureNameServer]:
    """``address`` is that of every name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = SecureNameServer(address, listener.getsockname()[1])
        thread = threading.Thread(target=server.serve, args=(listener, context), daemon=True)
        thread.start()
        yield server
        # Closing alone does not wake who waits in accept.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def _exactly(stream: ssl.SSLSocket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        part = stream.recv(count - len(taken))
        if not part:
            raise EOFError
        taken += part
    return taken
