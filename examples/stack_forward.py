"""Forward a port to a target, few connections a second, through another proxy if one is given.

python examples/stack_forward.py 127.0.0.1:7000 example.com:80 [socks5h://127.0.0.1:1080]
"""

import asyncio
import sys

from qanat.stack import (
    Address,
    Forward,
    HappyEyeballs,
    LimitRate,
    Relay,
    Resolve,
    Resolver,
    TcpConnector,
    Timeout,
    ViaProxy,
    by_client,
    open_server,
    stack,
)


async def main(listen: str, target: str, proxy: str = "") -> None:
    connector = stack(Timeout(10, "connect"), Resolve(Resolver()), HappyEyeballs(), TcpConnector())
    if proxy:
        connector = ViaProxy(proxy)(connector)
    forward = Forward(Address.parse(target), connector, Relay(idle=300))
    async with open_server() as server:
        listener = server.tcp(listen, stack(LimitRate(50, burst=100, key=by_client), forward))
        print(f"{listener.address} -> {target}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
