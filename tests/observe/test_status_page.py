"""The page that shows a visitor the flow it came by."""

from __future__ import annotations

import asyncio
from typing import Any

from qanat.observe.http import Request, Response
from qanat.observe.status_page import status_page

FLOW: dict[str, Any] = {
    "id": 77,
    "client": "127.0.0.1:4711",
    "endpoint": "<script>alert(1)</script>",
    "target": "127.0.0.1:9",
    "state": "half_closed",
    "bytes_up": 80,
    "bytes_down": 0,
    "connect": 0.00042,
    "worker": 1,
}


def ask(client: str | None, accept: str = "*/*", path: str = "/", method: str = "GET") -> Response:
    page = status_page(
        lambda address: FLOW if address == "127.0.0.1:5" else None,
        version="1.2",
        listen="127.0.0.1:8000",
    )
    request = Request(method, path, {}, {"accept": accept}, b"", client)

    async def main() -> Response:
        return await page(request)

    return asyncio.run(main())


def body(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def test_curl_gets_text_with_its_flow() -> None:
    response = ask("127.0.0.1:5")
    assert response.content_type.startswith("text/plain")
    text = body(response)
    assert "came through the relay" in text
    assert "flow          77\n" in text
    assert "127.0.0.1:4711 (you)" in text
    assert "half-closed" in text
    assert "0.42 ms" in text


def test_a_browser_gets_a_page_in_which_everything_is_escaped() -> None:
    response = ask("127.0.0.1:5", "text/html,application/xhtml+xml")
    assert response.content_type.startswith("text/html")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<script>" not in body(response)
    assert "&lt;script&gt;" in body(response)


def test_a_visitor_who_came_round_the_relay_is_told_so() -> None:
    assert "did not come through the relay" in body(ask("127.0.0.1:6"))
    assert "http://127.0.0.1:8000/" in body(ask(None))


def test_only_one_page_and_only_to_look_at() -> None:
    assert ask("127.0.0.1:5", path="/favicon.ico").status == 404
    assert ask("127.0.0.1:5", method="POST").status == 405
