"""realm's option strings, and every way to write one wrongly."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.transport_options import (
    LISTEN,
    REMOTE,
    OptionError,
    Side,
    escaped,
    parse_options,
)

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "side", "table"),
    [
        ("", LISTEN, {}),
        (" ; ;", LISTEN, {}),
        ("ws;host=a;path=/b", LISTEN, {"ws": {"host": "a", "path": "/b"}}),
        (" ws ; path = /b ; host= a ", REMOTE, {"ws": {"host": "a", "path": "/b"}}),
        (
            "tls;servername=a;ws;host=b;path=/c",
            LISTEN,
            {"tls": {"servername": "a"}, "ws": {"host": "b", "path": "/c"}},
        ),
        ("tls;cert=a;key=b;ocsp=c", LISTEN, {"tls": {"cert": "a", "key": "b", "ocsp": "c"}}),
        ("tls;sni=a;alpn=h2, http/1.1,", REMOTE, {"tls": {"sni": "a", "alpn": ["h2", "http/1.1"]}}),
        ("tls;sni=a;insecure;0rtt", REMOTE, {"tls": {"sni": "a", "insecure": True}}),
        ("ws;host=a;path=/b?c=d==", REMOTE, {"ws": {"host": "a", "path": "/b?c=d=="}}),
        (r"ws;host=a;path=/\;\=\,\\", REMOTE, {"ws": {"host": "a", "path": "/;=,\\"}}),
        (r"tls;sni=a;alpn=a\,b,c", REMOTE, {"tls": {"sni": "a", "alpn": ["a,b", "c"]}}),
        ("ws;host=a;path=/b,c", LISTEN, {"ws": {"host": "a", "path": "/b,c"}}),
        (
            "ws;host=a;path=/;mask=standard",
            REMOTE,
            {"ws": {"host": "a", "path": "/", "mask": "random"}},
        ),
        (
            "uot;tls;sni=a;ca=b;cert=c;key=d;key_log",
            REMOTE,
            {
                "uot": True,
                "tls": {"sni": "a", "ca": "b", "cert": "c", "key": "d", "key_log": True},
            },
        ),
        (
            "tls;servername=a;client_ca=b;client_optional",
            LISTEN,
            {"tls": {"servername": "a", "client_ca": "b", "client_optional": True}},
        ),
    ],
)
def test_what_it_means(text: str, side: Side, table: dict[str, Any]) -> None:
    assert parse_options(text, side).table == table


@pytest.mark.parametrize(
    ("text", "side", "message", "hint"),
    [
        ("WS;host=a;path=/b", LISTEN, 'unknown option "WS"', "did you mean ws?"),
        ("websocket;host=a", LISTEN, 'unknown option "websocket"', "did you mean ws?"),
        ("Tls;sni=a", REMOTE, 'unknown option "Tls"', "did you mean tls?"),
        ("tls;Sni=a", REMOTE, 'unknown option "Sni"', "did you mean sni=?"),
        ("tls;serverName=a", LISTEN, 'unknown option "serverName"', "did you mean servername=?"),
        ("ws;hostname=a;path=/b", REMOTE, 'unknown option "hostname"', "did you mean host=?"),
        ("ws;host;path=/b", REMOTE, '"host" needs a value', "host=..."),
        ("ws;host= ;path=/b", REMOTE, '"host" needs a value', "host=..."),
        ("ws;path=/b", REMOTE, '"ws" needs host=', "ws;host=a.example;path=/chat"),
        ("ws;host=a", LISTEN, '"ws" needs path=', "ws;host=a.example;path=/chat"),
        ("tls=1;sni=a", REMOTE, '"tls" takes no value', "tls"),
        ("host=a;path=/b", REMOTE, '"host" is for ws, which is missing', "ws;host=..."),
        ("insecure", REMOTE, '"insecure" is for tls, which is missing', "tls;insecure"),
        ("tls;sni=a;sni=b", REMOTE, "sni= is given twice", "once is enough"),
        ("ws;ws", REMOTE, "ws is given twice", "once is enough"),
        ("tls;sni=a", LISTEN, '"sni" belongs in remote_transport', None),
        ("tls;servername=a", REMOTE, '"servername" belongs in listen_transport', None),
        ("tls;insecure", LISTEN, '"insecure" belongs in remote_transport', None),
        (
            "ws,host=a,path=/b",
            LISTEN,
            '"ws,host=a,path=/b" has commas between options',
            "semicolons: ws;host=a;path=/b",
        ),
        ("ws;host=a;path=/b,tls;sni=c", REMOTE, '"path=/b,tls" has a comma before tls', None),
        ("tls;sni=a,insecure", REMOTE, '"sni=a,insecure" has a comma before insecure', None),
        ("tls;alpn=h2,sni=a", REMOTE, '"alpn=h2,sni=a" has a comma before sni', None),
        (r"ws;host=a;path=\x", REMOTE, r'"\x" stands for nothing', None),
        ("ws;host=a;path=/b\\", REMOTE, "a backslash at the end", None),
        ("ws;host=a;path=/b;mask=7", REMOTE, '"7" is not a mask', None),
        ("xyzzy", REMOTE, 'unknown option "xyzzy"', None),
        ("\x1b[31m", REMOTE, r'unknown option "\x1b[31m"', None),
    ],
)
def test_mistakes(text: str, side: Side, message: str, hint: str | None) -> None:
    with pytest.raises(OptionError) as caught:
        parse_options(text, side)
    assert str(caught.value) == message
    if hint is not None:
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "side", "notice"),
    [
        ("tls;sni=a;0rtt", REMOTE, "0rtt has no effect"),
        ("ws;host=a;path=/b;mask=fixed", REMOTE, "realm ignores mask"),
        ("tls;cert=a;key=b;servername=c", LISTEN, "servername has no effect"),
    ],
)
def test_notices(text: str, side: Side, notice: str) -> None:
    (told,) = parse_options(text, side).notices
    assert notice in told


values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@given(host=values, path=values, sni=values, alpn=st.lists(values, min_size=1, max_size=3))
def test_what_is_escaped_comes_back(host: str, path: str, sni: str, alpn: list[str]) -> None:
    parts = {"host": host, "path": path, "sni": sni}
    words = [f"{name}={escaped(value)}" for name, value in parts.items()]
    text = ";".join(["ws", "tls", *words, f"alpn={','.join(map(escaped, alpn))}"])
    assert parse_options(text, REMOTE).table == {
        "ws": {"host": host, "path": path},
        "tls": {"sni": sni, "alpn": alpn},
    }


words = st.sampled_from(
    sorted(
        {*LISTEN.words, *REMOTE.words, *LISTEN.keys, *REMOTE.keys, "=", ";", ",", "\\", " ", "x"}
    )
)


@given(parts=st.lists(words | st.text(max_size=3), max_size=12), listening=st.booleans())
def test_whatever_the_text_an_answer_or_its_error(parts: list[str], listening: bool) -> None:
    text = "".join(parts)
    side = LISTEN if listening else REMOTE
    try:
        options = parse_options(text, side)
    except OptionError as error:
        assert str(error)
        assert str(error).isprintable()
        assert (error.hint or "x").isprintable()
        return
    # Nothing that was written is passed over: no layer, no key and no word is lost.
    assert options.table.keys() <= {"ws", "tls", "uot"}
    assert bool(options.table) == bool(
        {"ws", "tls", "uot"} & {part.strip() for part in text.split(";")}
    )
