"""Relay a port to a target and print a line for each connection that ended.

python examples/relay_basic.py 127.0.0.1:5000 example.com:80
"""

import asyncio
import sys
from contextlib import suppress

import qanat


async def main(listen: str, remote: str) -> None:
    async with qanat.Relay([qanat.Endpoint(listen=listen, remote=remote)]) as relay:
        ended = relay.ended()  # has what ends from here on
        print(f"{relay.endpoints[0].address} -> {remote}", flush=True)
        async for flow in ended:
            print(
                f"{flow.client}: {flow.bytes_up} bytes up, {flow.bytes_down} down "
                f"in {flow.duration:.3f} s, {flow.reason}",
                flush=True,
            )


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
