"""TLS for clients, plain TCP to the target: the engine does both, once the handshake is through.

python examples/stack_tls_terminator.py 127.0.0.1:8443 127.0.0.1:8080 cert.pem key.pem
"""

import asyncio
import sys

from qanat.stack import (
    Address,
    Forward,
    Stream,
    TcpConnector,
    Tls,
    TlsAccept,
    TlsServerConfig,
    open_server,
    stack,
)


async def main(listen: str, target: str, certificate: str, key: str) -> None:
    forward = Forward(Address.parse(target), TcpConnector())

    async def told(stream: Stream, /) -> None:
        facts = stream.ext.require(Tls)
        print(f"{facts.version}, asked for {facts.server_name}", flush=True)
        await forward(stream)

    secure = TlsAccept(TlsServerConfig.from_files(certificate, key))
    async with open_server() as server:
        listener = server.tcp(listen, stack(secure, told))
        print(f"TLS on {listener.address}", flush=True)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
