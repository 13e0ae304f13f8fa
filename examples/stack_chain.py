"""SOCKS5 and HTTP on one port, through a chain of other proxies: the first one is asked first.

python examples/stack_chain.py 127.0.0.1:1080 socks5h://192.0.2.1:1080 http://192.0.2.2:8080
"""

import asyncio
import sys

from qanat.proxy import HttpProxy, MixedProxy, Socks5Server
from qanat.stack import (
    Connector,
    HappyEyeballs,
    Resolve,
    Resolver,
    TcpConnector,
    ViaProxy,
    open_server,
    stack,
)


async def main(listen: str, *proxies: str) -> None:
    connect: Connector = stack(Resolve(Resolver()), HappyEyeballs(), TcpConnector())
    for proxy in proxies:
        # Each is reached through those before it.
        connect = ViaProxy(proxy)(connect)
    async with open_server() as server:
        listener = server.tcp(listen, MixedProxy(Socks5Server(connect), HttpProxy(connect)))
        print(f"{listener.address} through {' and '.join(proxies) or 'nobody'}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
