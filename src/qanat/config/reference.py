"""The reference of all keys for users, made of the models.

``python -m qanat.config.reference docs/configuration.md`` writes it; a test holds the page in the
repository against the models, and others run what stands in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from qanat.config.descriptions import describe, describe_field
from qanat.config.models import (
    Certificate,
    Check,
    Config,
    Dns,
    Endpoint,
    Limits,
    ListenTls,
    ListenTransport,
    Log,
    Model,
    Network,
    RemoteTls,
    RemoteTransport,
    Route,
    WebSocket,
)
from qanat.config.schema import schema

__all__ = ["reference"]

_INTRODUCTION: Final = """\
# Configuration

<!-- Made of the models by `python -m qanat.config.reference docs/configuration.md`. -->

A configuration says where to listen and where what comes in goes. This is a whole one:

```toml
[[endpoints]]
listen = "0.0.0.0:5000"
remote = "example.com:80"
```

And this uses more of what there is:

```toml
drain = 30

[log]
level = "info"
output = "/var/log/qanat.log"

[dns]
mode = "ipv4_then_ipv6"
nameservers = ["192.0.2.53", "[2001:db8::53]:5353"]

[network]
tcp_timeout = 3
max_connections_per_client = 100

[[endpoints]]
name = "web"
listen = "[::]:8080"
remote = "backend.example.com:80"

[[endpoints]]
name = "games"
listen = "0.0.0.0:27000-27010"
remote = "192.0.2.7:27000-27010"
network = { no_tcp = true, use_udp = true, udp_timeout = 120 }

[[endpoints]]
listen = "127.0.0.1:5432"
remote = "db.example.com:5432"
through = "eth1"
network = { idle_timeout = 3600, max_connections = 50 }
```

What flows can be put through on their way:

```toml
[[endpoints]]
name = "sites"
listen = "0.0.0.0:443"
remote = "192.0.2.20:443"
extra_remotes = ["192.0.2.21:443", "192.0.2.22:443"]
balance = "leastconn: 4, 2, 2"
failover = true
deny = ["198.51.100.0/24"]
network.check = { kind = "tls", interval = 10 }
network.max_rate_down_per_client = "20MiB/s"

[[endpoints.route]]
sni = ["shop.example.com", "*.shop.example.com"]
remote = "192.0.2.30:443"

[[endpoints]]
name = "behind-a-balancer"
listen = "0.0.0.0:8443"
remote = "127.0.0.1:80"
listen_transport = "tls;servername=a.example"
quota = "500GB"

[endpoints.network]
accept_proxy = true
accept_proxy_from = ["10.0.0.0/8"]
send_proxy = true
```

`qanat check FILE` shows every mistake in a file at once, each with its line and what would be
right, and the endpoints it describes. `qanat schema` prints the JSON Schema, which is also in
[schema.json](schema.json): editors that know JSON Schema complete and check keys with it.

## Files

`qanat relay -c PATH` reads a file, a folder or a pipe.

* **Formats** are TOML, JSON and YAML. The extension decides (`.toml`, `.json`, `.yaml`, `.yml`);
  where it says nothing, as for a pipe, the content does. YAML follows version 1.2: `off` and `no`
  are texts, only `true` and `false` are truths.
* **A folder** stands for all files in it and in the folders below that have one of these
  extensions, sorted by path. Names that begin with a dot are left out. For each key of a table the
  first file that gives it wins; the endpoints of all files follow one another, and a file without
  endpoints is fine.
* **Files of realm** are read as they are, also the legacy JSON format of four lists
  (`listening_addresses`, `listening_ports`, `remote_addresses`, `remote_ports`), which
  `qanat convert` rewrites.
* **`REALM_CONF`** in the environment, when it is set, is read as the text of a configuration.

What is wrong is an error, and nothing is started: a word that is not in the list, a number out of
its range, a text where a number should be, an address that can't be one, a key given twice. **A
key that nobody knows** is ignored with a warning that names the nearest known one. `null` in JSON
counts as if the key were not there, except for tables and lists. At the top of a file, `$schema`
and keys that begin with `x-` (for YAML's anchors) may hold anything. `zero_copy` and `fast_open` of
old files are accepted and do nothing.

## Which value counts

From the strongest to the weakest:

| | `log`, `dns`, `limits` and keys of the whole file | `network` | `endpoints` |
|---|---|---|---|
| 1 | the command line's option | the command line's option, for every endpoint | the file |
| 2 | the file | the endpoint's own `network` table | - |
| 3 | the default | the file's `network` table | - |
| 4 | - | the default | - |

This goes key by key: an endpoint with a `network` table of one key takes all other keys from the
file's. `-u`, `-t`, `-6` and `-m` can only switch on.

## Addresses

| where | accepted | meaning |
|---|---|---|
| `listen` | `192.0.2.1:5000`, `[2001:db8::1]:5000`, `[fe80::1%eth0]:5000` | this address |
| | `0.0.0.0:5000`, `*:5000`, `:5000`, `0:5000` | every IPv4 address |
| | `[::]:5000`, `:::5000` | every address, unless `ipv6_only` |
| | `localhost:5000` | the name's first address, asked for once at start |
| | `0.0.0.0:5000-5010` | one endpoint for each port |
| | `127.0.0.1:0` | a free port |
| `remote` | `192.0.2.7:443`, `[2001:db8::1]:443` | this address |
| | `example.com:443` | the name's addresses, asked for by each flow as the cache allows |
| | `example.com:6000-6010` | as many ports as `listen` has, paired one by one |
| `through` | `192.0.2.9`, `[2001:db8::9]` | leave from this address |
| | `192.0.2.9:4000`, `name.example:4000` | leave from this address and port |
| | `eth0` | leave from this device's address |
| `nameservers` | `192.0.2.53`, `2001:db8::53`, `dns.example` | port 53 of this address |
| | `192.0.2.53:5353`, `[2001:db8::53]:5353` | another port |

IPv6 addresses without brackets are understood where the text after the last colon is the port:
`::1:80` is port 80 of `::1`.

## Transports

`listen_transport` and `remote_transport` are a table each, or realm's text of options between
semicolons. These two are the same:

```toml
[[endpoints]]
listen = "0.0.0.0:443"
remote = "127.0.0.1:80"
listen_transport = "ws;host=a.example;path=/chat;tls;servername=a.example"
```

```toml
[[endpoints]]
listen = "0.0.0.0:443"
remote = "127.0.0.1:80"

[endpoints.listen_transport]
ws = { host = "a.example", path = "/chat" }
tls = { servername = "a.example" }
```

TLS is always outside and WebSocket inside of it, whatever the order. In the text these words are
known, and every other one is an error:

| side | words | words with a value |
|---|---|---|
| both | `ws`, `tls`, `uot`, `key_log`, `0rtt` (no effect) | `host=`, `path=`, `alpn=a,b` |
| `listen_transport` | `client_optional` | `cert=`, `key=`, `ocsp=`, `servername=`, `client_ca=` |
| `remote_transport` | `insecure` | `sni=`, `ca=`, `cert=`, `key=`, `mask=` (`zero`, `random`) |

`ws` needs `host=` and `path=`; `tls` needs `sni=` towards a target and `cert=` with `key=`, or
`servername=`, towards clients. A semicolon in a value is written `\\;`, and so are `\\=`, `\\,` and
`\\\\`. Several certificates are a matter of the table: `certificates`.

Files are looked at before anything starts: one that is missing, that holds no certificate or key,
or whose key belongs to another certificate is an error that names it.

## Amounts

| what | accepted |
|---|---|
| bytes (`quota`) | `1000000`, `500MB`, `1.5 GiB` |
| bytes a second (`max_rate_up` and the like) | `1000000`, `10MiB/s`, `100Mbit/s` |

`kB`, `MB`, `GB` and `TB` count in thousands, `KiB`, `MiB`, `GiB` and `TiB` in 1024; `kbit`, `Mbit`
and `Gbit` are bits. Other units are refused and not guessed.
"""


def reference() -> str:
    """The whole page, ended by a newline."""
    blocks = [_INTRODUCTION, "## Keys\n"]
    top = [name for name in Config.model_fields if name not in _NAMES]
    blocks.append("### Of the whole file\n")
    blocks.append(_table(Config, top))
    for heading, model in _TABLES.items():
        blocks.append(f"### `{heading}`\n")
        blocks.append(f"{describe(model)}\n")
        blocks.append(_table(model, list(model.model_fields)))
    return "\n".join(blocks)


_TABLES: Final[dict[str, type[Model]]] = {
    "[[endpoints]]": Endpoint,
    "[[endpoints.route]]": Route,
    "[endpoints.listen_transport]": ListenTransport,
    "[endpoints.listen_transport.tls]": ListenTls,
    "[[endpoints.listen_transport.tls.certificates]]": Certificate,
    "[endpoints.remote_transport]": RemoteTransport,
    "[endpoints.remote_transport.tls]": RemoteTls,
    "[endpoints.listen_transport.ws]` and `[endpoints.remote_transport.ws]": WebSocket,
    "[network]": Network,
    "[network.check]": Check,
    "[limits]": Limits,
    "[dns]": Dns,
    "[log]": Log,
}
_NAMES: Final = frozenset({"endpoints", "network", "limits", "dns", "log"})


def _table(model: type[Model], names: list[str]) -> str:
    return "".join(_rows(model, names))


def _rows(model: type[Model], names: list[str]) -> Iterator[str]:
    yield "| key | kind | default | |\n|---|---|---|---|\n"
    whole = schema()
    properties = whole["properties"] if model is Config else _properties(whole, model)
    for name in names:
        text = describe_field(model, name).replace("|", "\\|")
        yield f"| `{name}` | {_kind(properties[name])} | {_default(model, name)} | {text} |\n"


def _properties(whole: dict[str, Any], model: type[Model]) -> dict[str, Any]:
    properties: dict[str, Any] = whole["$defs"][model.__name__]["properties"]
    return properties


def _kind(property: dict[str, Any]) -> str:
    if "$ref" in property:
        return "table"
    if "enum" in property:
        return ", ".join(
            f"`{word if isinstance(word, str) else json.dumps(word)}`" for word in property["enum"]
        )
    if "const" in property:
        return f"`{property['const']}`"
    choices = property.get("anyOf") or property.get("oneOf")
    if choices:
        kinds = [_kind(part) for part in choices if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    match property.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "integer":
            return _numbers(property, "whole number")
        case "number":
            return "number"
        case "array":
            return f"list of {_plural(_kind(property['items']))}"
        case "string":
            return "text"
        case "object":
            return "table"
        case _:
            return "-"


def _plural(kind: str) -> str:
    plural = {"text": "texts", "table": "tables"}.get(kind)
    return plural or kind.replace("whole number", "whole numbers")


def _numbers(property: dict[str, Any], what: str) -> str:
    low, high = property["minimum"], property["maximum"]
    if high - low == 1:
        return f"{low} or {high}"
    return what if high > 2**31 else f"{what}, {low} to {high}"


def _default(model: type[Model], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, Model) or value in ([], ()):
        return "-"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
