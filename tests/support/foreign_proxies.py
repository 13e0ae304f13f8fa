"""Proxies that others wrote, on ports of their own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.wait import wait_until

__all__ = ["PROXIES", "foreign_proxy", "is_installed"]

_DANTE = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: lo
socksmethod: none
clientmethod: none
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""
_TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
BasicAuth john secret
"""
_SQUID = """
http_port 127.0.0.1:{port}
http_access allow all
cache deny all
access_log none
cache_log /dev/null
pid_filename none
pinger_enable off
shutdown_lifetime 1 seconds
"""
PROXIES = {
    "dante": ("danted", _DANTE, ("-f",), "socks5h://127.0.0.1:{port}"),
    "tinyproxy": ("tinyproxy", _TINYPROXY, ("-d", "-c"), "http://john:secret@127.0.0.1:{port}"),
    "squid": ("squid", _SQUID, ("-N", "-f"), "http://127.0.0.1:{port}"),
}


def is_installed(name: str) -> bool:
    return shutil.which(PROXIES[name][0]) is not None


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def foreign_proxy(name: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its URL, with what it asks for, and its process."""
    program, text, words, url = PROXIES[name]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = folder / f"{name}.conf"
    conf.write_text(text.format(port=port))
    quiet = subprocess.DEVNULL
    with subprocess.Popen([program, *words, str(conf)], stdout=quiet, stderr=quiet) as process:
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None, what=f"{name} listens")
            assert process.poll() is None, f"{name} ended with {process.returncode}"
            yield url.format(port=port), process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
