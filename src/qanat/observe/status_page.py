"""The page behind the quick start: it shows the flow by which it was reached.

Text for curl, HTML for browsers. Knows a flow as a mapping of plain values; whatever it shows is
escaped, since a visitor chooses some of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from .http import Handler, Request, Response, text_response

__all__ = ["FindFlow", "status_page"]

FindFlow = Callable[[str], Mapping[str, Any] | None]
"""The flow whose own address towards its peer is the given one."""


def status_page(find: FindFlow, *, version: str, listen: str) -> Handler:
    """``listen`` is where the relay in front of the page listens."""

    async def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return text_response("only GET\n", 405)
        if request.path != "/":
            return text_response("nothing here; the page is at /\n", 404)
        flow = find(request.client) if request.client is not None else None
        rows = _rows(flow, request)
        if "text/html" in request.headers.get("accept", ""):
            return _html(rows, flow is not None, version, listen)
        return text_response(_text(rows, flow is not None, version, listen))

    return answer


def _rows(flow: Mapping[str, Any] | None, request: Request) -> list[tuple[str, str]]:
    if flow is None:
        return [("you came from", request.client or "unknown")]
    rows = [
        ("flow", str(flow["id"])),
        ("client", f"{flow['client']} (you)"),
        ("endpoint", str(flow["endpoint"])),
        ("target", f"{flow['target']} (this page)"),
        ("state", str(flow["state"]).replace("_", "-")),
        ("bytes up", str(flow["bytes_up"])),
        ("bytes down", str(flow["bytes_down"])),
    ]
    if flow.get("connect") is not None:
        rows.append(("connected in", f"{flow['connect'] * 1000:.2f} ms"))
    rows.append(("worker", str(flow["worker"])))
    return rows


def _sentence(through: bool, listen: str) -> str:
    if through:
        return "It works: this request came through the relay, by this flow."
    return f"This request did not come through the relay. Try http://{listen}/"


def _text(rows: list[tuple[str, str]], through: bool, version: str, listen: str) -> str:
    width = max(len(name) for name, _ in rows)
    lines = [f"qanat {version}", "", _sentence(through, listen), ""]
    lines += [f"  {name:<{width}}  {_printable(value)}" for name, value in rows]
    lines += ["", "See more with: qanat flows, qanat top, qanat endpoints", ""]
    return "\n".join(lines)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem;
  color: #1b2a33; background: #fbfaf7; }
h1 { font-size: 1.4rem; } h1 small { font-weight: normal; color: #6b7a83; }
table { border-collapse: collapse; margin: 1.5rem 0; }
th { text-align: left; font-weight: normal; color: #6b7a83; padding: .15rem 1.5rem .15rem 0; }
td, code { font-family: ui-monospace, monospace; }
@media (prefers-color-scheme: dark) { body { color: #dfe7ea; background: #14191c; } }
"""


def _html(rows: list[tuple[str, str]], through: bool, version: str, listen: str) -> Response:
    table = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows
    )
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>qanat</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>qanat <small>{escape(version)}</small></h1>
<p>{escape(_sentence(through, listen))}</p>
<table>
{table}
</table>
<p>See more with <code>qanat flows</code>, <code>qanat top</code> and <code>qanat endpoints</code>.
Reload this page and watch the numbers.</p>
</body>
</html>
"""
    return Response(
        body=page.encode(),
        content_type="text/html; charset=utf-8",
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "X-Frame-Options": "DENY",
        },
    )
