"""Through proxies that others wrote, and through our own."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from qanat.stack import Address, ConnectError, ConnectTo, TcpConnector, ViaProxy, stack
from tests.support.certificates import Authority
from tests.support.foreign_proxies import PROXIES, foreign_proxy, is_installed
from tests.support.proxy_process import address, curl, proxy
from tests.support.wait import wait_until

__all__: list[str] = []

FOREIGN = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"),
    )
    for name in PROXIES
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_proxy_behind_ours(tmp_path: Path, site: str, name: str) -> None:
    with ExitStack() as alive:
        via, foreign = alive.enter_context(foreign_proxy(name, tmp_path))
        process = alive.enter_context(proxy(tmp_path, "--mixed", "127.0.0.1:0", "--via", via))
        process.ready()
        where = address(process)
        big = tmp_path / "big"
        big.write_bytes(b"x" * 300_000)
        for kind, words in (("http", ()), ("http", ("-p",)), ("socks5h", ()), ("socks4a", ())):
            assert curl(f"{kind}://{where}", f"{site}/by/{kind}", *words) == (
                0,
                f"GET /by/{kind}",
                "",
            )
            sent = curl(f"{kind}://{where}", site, *words, "--data-binary", f"@{big}")
            assert sent[1] == "300000 bytes"
        # It was that proxy and nobody else.
        foreign.terminate()
        foreign.wait(10)
        code, shown, said = curl(f"http://{where}", f"{site}/", "-i")
        assert code == 0, said
        assert shown.startswith("HTTP/1.1 502 ")
        assert "connection_refused" in shown
        assert "secret" not in process.log.read_text()


@pytest.mark.skipif(not is_installed("tinyproxy"), reason="tinyproxy is not installed")
def test_credentials_that_a_foreign_proxy_refuses(tmp_path: Path, site: str) -> None:
    with ExitStack() as alive:
        via, _ = alive.enter_context(foreign_proxy("tinyproxy", tmp_path))
        wrong = via.replace("secret", "wrong")
        process = alive.enter_context(proxy(tmp_path, "--mixed", "127.0.0.1:0", "--via", wrong))
        process.ready()
        shown = curl(f"http://{address(process)}", f"{site}/", "-i")[1]
        assert shown.startswith("HTTP/1.1 502 ")
        assert "wrong" not in shown


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h", "socks4a"])
def test_two_of_ours(tmp_path: Path, site: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", "DNS:localhost,IP:127.0.0.1")
    # The system's authorities, as far as this test goes.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    with ExitStack() as alive:
        words = ("--mixed", "127.0.0.1:0", "--tls", f"{certificate},{key}")
        far = alive.enter_context(proxy(tmp_path / "far", *words))
        far.ready()
        via = f"{kind}://{address(far)}"
        near = alive.enter_context(proxy(tmp_path / "near", "--mixed", "127.0.0.1:0", "--via", via))
        near.ready()
        assert curl(f"socks5h://{address(near)}", f"{site}/x")[1] == "GET /x"
        target = site.removeprefix("http://")
        for process in (near, far):
            wait_until(partial(process.ended, target=target), what="its line")


@pytest.mark.skipif(
    not all(map(is_installed, PROXIES)), reason="some foreign proxies are not installed"
)
def test_a_chain_of_foreign_proxies(tmp_path: Path, site: str) -> None:
    async def ask(*urls: str) -> bytes:
        connector = stack(*map(ViaProxy, urls), TcpConnector())  # type: ignore[call-overload]
        target = Address.parse(site.removeprefix("http://"))
        stream = await connector(ConnectTo(target))
        await stream.write(b"GET /chained HTTP/1.0\r\n\r\n")
        heard = b""
        while part := await stream.read():
            heard += part
        await stream.aclose()
        return heard

    with ExitStack() as alive:
        urls = [alive.enter_context(foreign_proxy(name, tmp_path))[0] for name in PROXIES]
        assert asyncio.run(ask(*urls)).endswith(b"GET /chained")
        assert asyncio.run(ask(*reversed(urls))).endswith(b"GET /chained")
    with pytest.raises(ConnectError) as error:
        asyncio.run(ask(*urls))
    assert error.value.kind == "refused"
