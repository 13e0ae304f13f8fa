"""A SOCKS5 proxy for one user, which lets nobody reach this machine or its private networks.

python examples/proxy_socks5_auth.py 127.0.0.1:1080 john secret
"""

import asyncio
import sys

from qanat.proxy import Socks5Server, UserPass
from qanat.stack import (
    Guard,
    HappyEyeballs,
    Resolve,
    Resolver,
    TcpConnector,
    open_server,
    stack,
)


async def main(listen: str, name: str, password: str) -> None:
    connector = stack(Resolve(Resolver()), Guard(), HappyEyeballs(), TcpConnector())
    proxy = Socks5Server(connect=connector, auth=UserPass({name: password}))
    async with open_server() as server:
        listener = server.tcp(listen, proxy)
        print(f"SOCKS5 on {listener.address}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
