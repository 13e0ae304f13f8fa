"""Route TLS by the name that clients ask for. Nothing is decrypted, so there are no keys here.

python examples/stack_sni_router.py :443 www.example.com=10.0.0.5:443 '*.example.com=10.0.0.6:443'
"""

import asyncio
import sys

from qanat.stack import (
    Address,
    ClientHello,
    Forward,
    HappyEyeballs,
    Resolve,
    Resolver,
    SniRoute,
    Stream,
    TcpConnector,
    Timeout,
    open_server,
    stack,
)

connector = stack(Timeout(10, "connect"), Resolve(Resolver()), HappyEyeballs(), TcpConnector())


async def refuse(stream: Stream, /) -> None:
    hello = stream.ext.get(ClientHello)
    print("nobody serves", hello.server_name if hello else "a client without a name", flush=True)
    stream.abort()


async def main(listen: str, *routes: str) -> None:
    services = {
        name: Forward(Address.parse(target), connector)
        for name, _, target in (route.partition("=") for route in routes)
    }
    async with open_server() as server:
        listener = server.tcp(listen, SniRoute(services, default=refuse))
        print(f"routing {', '.join(services)} on {listener.address}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
