"""Connecting by TCP: what is reached, what is told when not, and what is never done."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.connect.target import ConnectTo
from qanat.stack.connect.tcp import TcpConnector
from qanat.stack.errors import ConnectError
from qanat.stack.facts import Peer
from tests.stack.conftest import Run

__all__: list[str] = []


def closed_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_connects(run: Run[Any], host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        to = Address(host, listener.getsockname()[1])

        async def exchange() -> None:
            stream = await TcpConnector(keepalive=30.0, through=("127.0.0.1", "::1"))(ConnectTo(to))
            with listener.accept()[0] as far:
                assert stream.ext.get(Peer) == Peer(to)
                assert stream.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert stream.raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                far.sendall(b"hello")
                assert await stream.read_exactly(5) == b"hello"
            await stream.aclose()

        run(exchange())


def test_refused(run: Run[Any]) -> None:
    async def exchange() -> ConnectError:
        with pytest.raises(ConnectError) as caught:
            await TcpConnector()(ConnectTo(Address("127.0.0.1", closed_port())))
        return caught.value

    error: ConnectError = run(exchange())
    assert (error.kind, error.domain) == ("refused", "transport")
    assert len(error.attempts) == 1


def test_candidates_in_turn(run: Run[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        wrong = Address("127.0.0.1", closed_port())
        target = Address("some.example", port)

        async def exchange() -> None:
            asked = ConnectTo(target, candidates=(wrong, Address("127.0.0.1", port)))
            stream = await TcpConnector()(asked)
            listener.accept()[0].close()
            await stream.aclose()
            with pytest.raises(ConnectError) as caught:
                await TcpConnector()(ConnectTo(target, candidates=(wrong, wrong)))
            assert caught.value.kind == "refused"
            assert len(caught.value.attempts) == 2
            with pytest.raises(ConnectError) as caught:
                await TcpConnector()(ConnectTo(target, candidates=()))
            assert caught.value.kind == "dns"

        run(exchange())


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1", "a\0b", "::1::"])
def test_a_name_is_never_looked_up(
    run: Run[Any], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)

    async def exchange() -> None:
        with pytest.raises(ConnectError) as caught:
            await TcpConnector()(ConnectTo(Address(host, 80)))
        assert (caught.value.kind, caught.value.domain) == ("dns", "local")

    run(exchange())


@pytest.mark.parametrize(
    ("connector", "host"),
    [
        (TcpConnector(through=("192.0.2.77",)), "127.0.0.1"),
        (TcpConnector(through=("127.0.0.1",)), "::1"),
        (TcpConnector(), "fe80::1%nosuchdevice"),
    ],
)
def test_what_this_machine_can_not_do(run: Run[Any], connector: TcpConnector, host: str) -> None:
    async def exchange() -> None:
        with pytest.raises(ConnectError) as caught:
            await connector(ConnectTo(Address(host, 80)))
        assert caught.value.domain == "local"

    run(exchange())


def test_cancelled_while_it_waits(run: Run[Any]) -> None:
    """A listener whose queue is full answers nobody."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        to = Address("127.0.0.1", listener.getsockname()[1])

        async def exchange() -> None:
            async def dial() -> Any:
                return await TcpConnector()(ConnectTo(to))

            tasks = [asyncio.get_running_loop().create_task(dial()) for _ in range(4)]
            done, waiting = await asyncio.wait(tasks, timeout=0.2)
            assert waiting
            for task in waiting:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in waiting)
            for task in done:
                task.result().abort()

        run(exchange())


def test_a_connection_to_itself_is_none(run: Run[Any]) -> None:
    """A port that the kernel chose for us, dialled from itself, connects to itself on Linux."""

    class Fixed(TcpConnector):
        __slots__ = ()

        def _prepare(self, sock: socket.socket, family: int) -> None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))

    port = closed_port()

    async def exchange() -> None:
        with pytest.raises(ConnectError) as caught:
            await Fixed()(ConnectTo(Address("127.0.0.1", port)))
        assert caught.value.kind == "refused"

    run(exchange())
