"""A stack that terminates TLS and forwards, written in Python: what does a gigabyte cost beside the
engine's own TLS transport?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import generator
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Certificate, Peer, Qanat, Relaying
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import Site, site
from benchmarks.terminated import certificate, terminating

__all__ = ["QUESTION"]

_DIRECTIONS = ("up", "down")
_WAYS = ("engine", "auto", "never")
"""The relay; the stack whose TLS is the engine's; the stack whose TLS is Python's."""
_NAMES = {"engine": "relay", "auto": "stack", "never": "stack with Python's TLS"}


def _cost(way: str, direction: str) -> str:
    return f"TLS forward, {_NAMES[way]}, {direction}: CPU"


def _share(direction: str) -> str:
    return f"TLS forward, stack, {direction}: CPU against the relay"


async def _serve(engine: str, chain: str, key: str, targets: Mapping[str, str]) -> None:
    from qanat.stack.address import Address
    from qanat.stack.connect.tcp import TcpConnector
    from qanat.stack.layers.tls_accept import TlsAccept
    from qanat.stack.leaves import Forward
    from qanat.stack.server import open_server
    from qanat.stack.service import stack
    from qanat.stack.tls import TlsServerConfig

    layer = TlsAccept(
        TlsServerConfig.from_files(chain, key), engine="never" if engine == "never" else "auto"
    )
    async with open_server(drain=0.1) as server:
        found = {}
        for role, target in targets.items():
            forward = Forward(Address.parse(target), TcpConnector())
            found[role] = str(server.tcp("127.0.0.1:0", stack(layer, forward)).address)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        await server.run()


@dataclass(frozen=True)
class _Stack:
    """A program of the framework's, as a peer."""

    engine: str
    made: Certificate
    name: str = "stack"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return ""

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        words = [self.engine, str(self.made.chain), str(self.made.key), json.dumps(dict(targets))]
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tls_forward", *words],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise BenchmarkError("the stack did not come up")
                yield Relaying(json.loads(line), (process.pid,))
            finally:
                process.terminate()


@contextmanager
def _sites(peer: Qanat, folder: Path) -> Iterator[dict[str, Site]]:
    made = certificate(folder)
    with (
        terminating(peer, "discard", "source") as relay,
        site(_Stack("auto", made), "discard", "source") as auto,
        site(_Stack("never", made), "discard", "source") as never,
    ):
        yield {"engine": relay, "auto": auto, "never": never}


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    with (
        tempfile.TemporaryDirectory(prefix="qanat-bench-") as folder,
        _sites(peer, Path(folder)) as sites,
    ):

        def sample() -> dict[str, float]:
            values: dict[str, float] = {}
            for direction in _DIRECTIONS:
                for way, here in sites.items():
                    load = partial(
                        generator.client,
                        "tls-bulk",
                        here.address("discard" if direction == "up" else "source"),
                        direction=direction,
                        seconds=setting.seconds,
                        warm_up=setting.warm_up,
                    )
                    result, cpu = here.cost(load)
                    values[_cost(way, direction)] = cpu / (result["total"] / 1e9)
                ours = values[_cost("auto", direction)]
                values[_share(direction)] = ours / values[_cost("engine", direction)]
            return values

        yield sample


QUESTION = Question(
    name="tls_forward",
    text=__doc__,
    series=(
        *(Series(_share(direction), "", "less", 2) for direction in _DIRECTIONS),
        *(
            Series(_cost(way, direction), "s/GB", "less", 3)
            for way in _WAYS
            for direction in _DIRECTIONS
        ),
    ),
    bars=tuple(Absolute(_share(direction), 1.15) for direction in _DIRECTIONS),
    peers=("qanat",),
    open=_open,
)

if __name__ == "__main__":
    engine, chain, key, targets = sys.argv[1:]
    asyncio.run(_serve(engine, chain, key, json.loads(targets)))
