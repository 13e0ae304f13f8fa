"""Let a function decide where each connection goes.

    python examples/hook_by_network.py 127.0.0.1:8001 127.0.0.1:8002 192.168.0.0/16

Clients of the network go to the second address, everybody else to the first; nobody comes in by a
privileged port. A configuration file names such a function as hook = "/path/to/file.py:decide".
"""

import asyncio
import sys
from contextlib import suppress
from ipaddress import ip_network

import qanat

INSIDE = ip_network(sys.argv[3])


def decide(arrival: qanat.Arrival) -> qanat.Decision:
    if arrival.client_port < 1024:
        return qanat.Refuse("privileged port")
    return 1 if arrival.client_ip in INSIDE else 0


async def main() -> None:
    endpoint = qanat.Endpoint(
        listen="127.0.0.1:0",
        remote=sys.argv[1],
        extra_remotes=[sys.argv[2]],
        hook=f"{__name__}:decide",
    )
    async with qanat.Relay([endpoint]) as relay:
        print(relay.endpoints[0].address, flush=True)
        async for flow in relay.ended():
            print(f"{flow.client} -> {flow.target}: {flow.reason}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
