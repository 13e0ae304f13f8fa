"""``qanat proxy`` as its users meet it: curl by every kind of proxy, users, rules, reload, and what
is seen from outside."""

from __future__ import annotations

import http.client
import http.server
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.proxy_process import address, curl, proxy
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

__all__: list[str] = []

FORMS = ["http", "http tunnel", "socks4", "socks4a", "socks5", "socks5h"]


def by(form: str, where: str) -> tuple[str, tuple[str, ...]]:
    kind, *tunnel = form.split()
    return f"{kind}://{where}", ("-p",) if tunnel else ()


@pytest.mark.parametrize("form", FORMS)
def test_curl_by_every_kind_of_proxy_on_one_port(tmp_path: Path, site: str, form: str) -> None:
    with proxy(tmp_path, "--mixed", "127.0.0.1:0") as process:
        process.ready()
        via, words = by(form, address(process))
        assert curl(via, f"{site}/a?b", *words) == (0, "GET /a?b", "")
        assert curl(via, f"{site}/", *words, "-I")[0] == 0
        big = tmp_path / "big"
        big.write_bytes(b"x" * 300_000)
        assert curl(via, site, *words, "--data-binary", f"@{big}")[1] == "300000 bytes"
        chunked = ("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{big}")
        assert curl(via, site, *words, *chunked)[1] == "300000 bytes"


@pytest.mark.parametrize("form", ["http", "mixed"])
def test_tls_to_the_proxy_itself(tmp_path: Path, site: str, form: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", "DNS:localhost,IP:127.0.0.1")
    with proxy(tmp_path, f"--{form}", "127.0.0.1:0", "--tls", f"{certificate},{key}") as process:
        process.ready()
        via = f"https://{address(process, form)}"
        trust = ("--proxy-cacert", str(authority.cert))
        assert curl(via, f"{site}/", *trust)[1] == "GET /"
        assert curl(via, f"{site}/", "-p", *trust)[1] == "GET /"


@pytest.mark.parametrize("form", ["http", "http tunnel", "socks5h"])
def test_users_and_wrong_passwords(tmp_path: Path, site: str, form: str) -> None:
    users = tmp_path / "users"
    for name in ("alice", "bob"):
        made = subprocess.run(
            [sys.executable, "-m", "qanat", "proxy", "passwd", str(users), name],
            input=f"{name}'s secret\n",
            text=True,
            capture_output=True,
            check=True,
        )
        assert made.stdout == f"{name} is new in {users}\n"
    assert "secret" not in users.read_text()
    assert users.stat().st_mode & 0o777 == 0o600
    rules = ("--deny", "user=bob")
    with proxy(tmp_path, "--mixed", "127.0.0.1:0", "--auth", str(users), *rules) as process:
        process.ready()
        via, words = by(form, address(process))
        right = ("--proxy-user", "alice:alice's secret")
        assert curl(via, f"{site}/", *words, *right)[1] == "GET /"
        for credentials in (("--proxy-user", "alice:bob's secret"), ()):
            code, body, said = curl(via, f"{site}/", *words, *credentials, "-o", "/dev/stderr")
            assert body == ""
            assert "GET /" not in said
            assert code != 0 or "407" in said or "required" in said or "wrong" in said
        denied = curl(via, f"{site}/", *words, "--proxy-user", "bob:bob's secret")
        assert "GET /" not in denied[1]
        wait_until(lambda: bool(process.ended(user="alice")), what="the line of the user's flow")
        (flow,) = process.ended(user="alice")
        (account,) = (user for user in process.ask("/stats")["users"] if user["user"] == "alice")
        assert (account["open"], account["total"]) == (0, 1)
        assert account["bytes_down"] == flow["bytes_down"] > 0
        if form != "http":
            # What the engine moved is counted at the listener, too.
            (listener,) = process.ask("/endpoints")
            assert listener["bytes_down"] == flow["bytes_down"]
            assert listener["bytes_up"] == flow["bytes_up"] > 0
        assert "secret" not in process.log.read_text()


BROWSERS = ("chromium-headless-shell", "chromium")


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="there is no browser")
@pytest.mark.parametrize("kind", ["http", "https", "socks4", "socks5"])
def test_a_browser_by_every_kind_of_proxy(tmp_path: Path, site: str, kind: str) -> None:
    certificate, key = Authority(tmp_path).issue("localhost", "DNS:localhost,IP:127.0.0.1")
    words = ("--mixed", "127.0.0.1:0", "--tls", f"{certificate},{key}")
    with proxy(tmp_path, *words) as process:
        process.ready()
        browser = next(filter(None, map(shutil.which, BROWSERS)))
        shown = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--ignore-certificate-errors",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--proxy-server={kind}://{address(process)}",
                # It would not ask a proxy for this machine.
                "--proxy-bypass-list=<-loopback>",
                "--dump-dom",
                f"{site}/in-a-browser",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "GET /in-a-browser" in shown.stdout, shown.stderr
        target = site.removeprefix("http://")
        wait_until(lambda: bool(process.ended(target=target)), what="the line of its flow")


def test_what_can_not_be_reached_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with proxy(tmp_path, "--mixed", "127.0.0.1:0", "--deny", "to=*.forbidden.example") as process:
        process.ready()
        where = address(process)
        code, body, _ = curl(f"http://{where}", f"http://127.0.0.1:{port}/", "-i")
        assert code == 0
        assert "HTTP/1.1 502" in body
        assert "Proxy-Status: qanat; error=connection_refused" in body
        code, _, said = curl(f"http://{where}", f"http://127.0.0.1:{port}/", "-p")
        assert (code, "502" in said) == (56, True)
        code, _, said = curl(f"socks5h://{where}", f"http://127.0.0.1:{port}/")
        assert (code, "(5)" in said) == (97, True)
        code, body, _ = curl(f"http://{where}", "http://127.0.0.1:0/")
        assert "400" in body
        code, body, _ = curl(f"http://{where}", f"http://{where}/", "-i")
        assert "HTTP/1.1 400" in body or "HTTP/1.1 508" in body


def test_a_reload_changes_users_and_rules_and_loses_nobody(tmp_path: Path, site: str) -> None:
    port = int(site.rpartition(":")[2])
    file = tmp_path / "proxy.toml"
    file.write_text('mixed = "127.0.0.1:0"\n')
    with proxy(tmp_path, "-c", str(file)) as process:
        process.ready()
        where = address(process)
        host, _, own = where.rpartition(":")
        with socket.create_connection((host, int(own)), timeout=20) as tunnel:
            tunnel.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port)
            assert tunnel.recv(4096).startswith(b"HTTP/1.1 200 ")
            (flow,) = process.ask("/flows")
            assert flow["target"] == f"127.0.0.1:{port}"
            file.write_text(f'mixed = "127.0.0.1:0"\nrules = ["deny port={port}"]\n')
            assert process.ask("/reload", method="POST")["changed"] == ["rules"]
            assert "HTTP/1.1 403" in curl(f"http://{where}", site, "-i")[1]
            tunnel.sendall(b"GET /still HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = http.client.HTTPResponse(tunnel)
            answer.begin()
            assert answer.read() == b"GET /still"
            file.write_text('mixed = "127.0.0.1:0"\nrules = ["nonsense"]\n')
            with pytest.raises(AssertionError, match="nonsense"):
                process.ask("/reload", method="POST")
            assert "HTTP/1.1 403" in curl(f"http://{where}", site, "-i")[1]
            file.write_text('mixed = "127.0.0.1:0"\n')
            process.ask("/reload", method="POST")
            assert curl(f"http://{where}", f"{site}/")[1] == "GET /"


def with_alice(tmp_path: Path) -> Path:
    """A file of users in which she has a ``secret``."""
    users = tmp_path / "users"
    subprocess.run(
        [sys.executable, "-m", "qanat", "proxy", "passwd", str(users), "alice"],
        input="secret\n",
        text=True,
        capture_output=True,
        check=True,
    )
    return users


def test_a_reload_changes_the_way_for_new_connections(tmp_path: Path, site: str) -> None:
    port = int(site.rpartition(":")[2])
    users = with_alice(tmp_path)
    certificate, key = Authority(tmp_path).issue("localhost", "DNS:localhost,IP:127.0.0.1")
    file = tmp_path / "proxy.toml"
    file.write_text('mixed = "127.0.0.1:0"\n')
    with socket.socket() as nobody, proxy(tmp_path, "-c", str(file)) as process:
        # Bound, so that it is nobody else's, and deaf.
        nobody.bind(("127.0.0.1", 0))
        closed = nobody.getsockname()[1]
        process.ready()
        where = address(process)

        def reloaded(*lines: str) -> list[str]:
            file.write_text("\n".join(('mixed = "127.0.0.1:0"', *lines)) + "\n")
            changed: list[str] = process.ask("/reload", method="POST")["changed"]
            return changed

        host, _, own = where.rpartition(":")
        with socket.create_connection((host, int(own)), timeout=20) as tunnel:
            tunnel.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port)
            assert tunnel.recv(4096).startswith(b"HTTP/1.1 200 ")
            assert reloaded(f'via = "socks5h://127.0.0.1:{closed}"') == ["via"]
            assert curl(f"http://{where}", site, "-i")[1].startswith("HTTP/1.1 502 ")
            assert reloaded(f'auth = "{users}"') == ["users", "via"]
            assert curl(f"http://{where}", site, "-i")[1].startswith("HTTP/1.1 407 ")
            right = ("--proxy-user", "alice:secret")
            assert curl(f"http://{where}", f"{site}/", *right)[1] == "GET /"
            assert reloaded(f'tls = ["{certificate}", "{key}"]') == ["users", "tls"]
            assert curl(f"https://{where}", f"{site}/", "--proxy-insecure")[1] == "GET /"
            with pytest.raises(AssertionError, match=r"proxy\.toml"):
                reloaded(f'tls = ["{users}", "{key}"]')
            assert curl(f"https://{where}", f"{site}/", "--proxy-insecure")[1] == "GET /"
            tunnel.sendall(b"GET /still HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = http.client.HTTPResponse(tunnel)
            answer.begin()
            assert answer.read() == b"GET /still"
    with proxy(tmp_path, "--mixed", "127.0.0.1:0", "--tls", f"{users},{key}") as process:
        assert process.process.wait(20) == 1
        assert f"{users}: no PEM certificate" in process.log.read_text()


def test_limits_of_a_user(tmp_path: Path, site: str) -> None:
    port = int(site.rpartition(":")[2])
    users = with_alice(tmp_path)
    users.write_text(users.read_text().rstrip() + " connections=1\n")
    with proxy(tmp_path, "--mixed", "127.0.0.1:0", "--auth", str(users)) as process:
        process.ready()
        where = address(process)
        host, _, own = where.rpartition(":")
        with socket.create_connection((host, int(own)), timeout=20) as tunnel:
            tunnel.sendall(
                b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n"
                b"Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n" % port
            )
            assert tunnel.recv(4096).startswith(b"HTTP/1.1 200 ")
            (flow,) = process.ask("/flows")
            assert flow["user"] == "alice"
            user = ("--proxy-user", "alice:secret")
            assert "HTTP/1.1 503" in curl(f"http://{where}", site, "-i", *user)[1]
        wait_until(lambda: not process.flows(), what="the first flow's end")
        assert curl(f"http://{where}", f"{site}/", *user)[1] == "GET /"
        (told,) = process.ask("/stats")["users"]
        assert (told["user"], told["refused"]) == ("alice", 1)


def test_a_stack_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(
        "from qanat.stack.service import stack\n"
        "from qanat.stack.layers.timeout import Timeout\n"
        "async def shout(stream, /):\n"
        "    while data := await stream.read():\n"
        "        await stream.write(data.upper())\n"
        "    await stream.write_eof()\n"
        "app = stack(Timeout(60), shout)\n"
    )
    words = ("--app", "shout:app", "--listen", "127.0.0.1:0")
    with RelayProcess(tmp_path, *words, command="proxy", PYTHONPATH=str(tmp_path)) as process:
        process.ready()
        host, _, port = address(process, "app").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert sock.makefile("rb").read() == b"HELLO"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mixed", "nowhere"), "--mixed"),
        (("--mixed", ":0", "--deny", "port=x"), '"x" is no port'),
        (("--mixed", ":0", "--auth", "/nonexistent"), "can't be read"),
        (("--mixed", ":0", "--via", "ftp://x"), "no kind of proxy"),
        (("--app", "x:y"), "need each other"),
        (("--app", "no_such_module:y", "--listen", "127.0.0.1:0"), "no_such_module"),
        (("passwrd",), "did you mean 'passwd'?"),
        (("--mixd", ":0"), "did you mean '--mixed'?"),
    ],
)
def test_mistakes_have_no_traceback(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qanat", "proxy", *words, "--control", "off"]
        if words != ("passwrd",)
        else [sys.executable, "-m", "qanat", "proxy", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def described(tmp_path: Path, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "qanat", "proxy", "--describe", *words]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_a_configuration_is_checked_and_shown_without_serving(tmp_path: Path) -> None:
    words = ["--mixed", "127.0.0.1:0", "--socks5", "127.0.0.1:0", "--deny", "port=25"]
    code, out, err = described(tmp_path, *words)
    assert (code, err) == (0, "")
    assert out.startswith("socks5 127.0.0.1:0\nmixed 127.0.0.1:0\n")
    for layer in ("ByRules", "Guard", "TcpConnector"):
        assert layer in out
    code, out, err = described(tmp_path, *words, "--auth", "nobody.txt")
    assert code == 1
    assert "nobody.txt" in err
    assert "Traceback" not in err


def test_refusals_are_counted(tmp_path: Path, site: str) -> None:
    users = with_alice(tmp_path)
    words = ["--mixed", "127.0.0.1:0", "--auth", str(users), "--deny", "to=blocked.test"]
    with proxy(tmp_path, *words) as process:
        process.ready()
        where = f"http://{address(process)}"
        right = ("--proxy-user", "alice:secret")
        assert curl(where, "http://www.blocked.test/", "-i", *right)[1].startswith("HTTP/1.1 403 ")
        assert curl(where, site, "-i", "--proxy-user", "alice:wrong")[1].startswith("HTTP/1.1 407 ")
        (listener,) = process.ask("/endpoints")
        assert listener["refused"] == 2
        (told,) = process.ask("/stats")["users"]
        assert (told["user"], told["refused"]) == ("alice", 1)
