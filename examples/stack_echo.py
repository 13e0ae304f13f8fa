"""A server that sends back what it gets, at most a thousand connections at once.

python examples/stack_echo.py 127.0.0.1:7000
"""

import asyncio
import sys

from qanat.stack import LimitConns, Stream, Timeout, describe, open_server, stack


async def echo(stream: Stream, /) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


service = stack(LimitConns(1000), Timeout(60), echo)


async def main(listen: str) -> None:
    async with open_server(drain=30) as server:
        listener = server.tcp(listen, service)
        print(describe(service))
        print(f"echo on {listener.address}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
