"""A layer of one's own: it greets, and then leaves the connection to the service below.

python examples/stack_custom_layer.py 127.0.0.1:7000
"""

import asyncio
import sys
from dataclasses import dataclass

from qanat.stack import Peer, Service, Stream, echo, open_server, stack


@dataclass(frozen=True)
class Greet:
    """A layer is a small object with settings, called with the service below it."""

    text: str

    def __call__(self, inner: Service[Stream, None], /) -> Service[Stream, None]:
        async def greet(stream: Stream, /) -> None:
            peer = stream.ext.require(Peer).address
            await stream.write(f"{self.text}, {peer.host}\n".encode())
            await inner(stream)

        return greet


async def main(listen: str) -> None:
    async with open_server() as server:
        listener = server.tcp(listen, stack(Greet("hello"), echo))
        print(f"listening on {listener.address}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
