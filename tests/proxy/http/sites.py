"""Servers that say what the test gives them, and readers of whole messages."""

from __future__ import annotations

from qanat.stack import Stream

__all__ = ["Site", "message", "read_all"]


class Site:
    """A server of the test: says the next of its answers to each request, and remembers them."""

    def __init__(
        self, *answers: bytes, ends_after: int | None = None, silent_after: int | None = None
    ) -> None:
        self.answers = list(answers)
        self.said: list[bytes] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.ends_after = ends_after
        """The number of the request after which it ends its connection, in order."""
        self.silent_after = silent_after
        """The number of the request from which on it says nothing."""

    async def __call__(self, stream: Stream, /) -> None:
        self.connections += 1
        while self.answers:
            request = await message(stream)
            if not request:
                return
            self.requests.append(request)
            if self.silent_after is not None and len(self.requests) > self.silent_after:
                break
            self.said.append(self.answers.pop(0))
            await stream.write(self.said[-1])
            if len(self.requests) == self.ends_after:
                return
        await stream.read()


async def message(stream: Stream) -> bytes:
    """A head and its body by Content-Length or chunks; empty at the end."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        part = await stream.read(1)
        if not part:
            return seen
        seen += part
    head = seen.lower()
    if b"content-length:" in head:
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        seen += await stream.read_exactly(length)
    elif b"transfer-encoding: chunked" in head:
        # Our name in Via may end with a 0, too.
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await stream.read_exactly(1)
        seen += body
    return seen


async def read_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)
