"""An HTTP proxy that lets clients reach some domains, and only by TLS.

python examples/proxy_connect_policy.py 127.0.0.1:8080 example.com example.org
"""

import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import dataclass

from qanat.proxy import HttpProxy
from qanat.stack import (
    Connector,
    ConnectTo,
    Denied,
    DomainSet,
    HappyEyeballs,
    Resolve,
    Resolver,
    Stream,
    TcpConnector,
    open_server,
    stack,
)


@dataclass(frozen=True)
class OnlyTo:
    """A layer of connectors: what is raised here becomes the client's 403."""

    domains: DomainSet
    port: int

    def __call__(self, inner: Connector, /) -> Connector:
        def connect(asked: ConnectTo, /) -> Awaitable[Stream]:
            if asked.target.host not in self.domains or asked.target.port != self.port:
                raise Denied(f"{asked.target} is not on the list")
            return inner(asked)

        return connect


async def main(listen: str, *domains: str) -> None:
    policy = OnlyTo(DomainSet(domains), 443)
    connector = stack(policy, Resolve(Resolver()), HappyEyeballs(), TcpConnector())
    async with open_server() as server:
        listener = server.tcp(listen, HttpProxy(connect=connector))
        print(f"HTTP proxy on {listener.address}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
