"""The names of the package, and that nobody pays for those that are not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qanat.stack import stream

__all__: list[str] = []


@pytest.mark.parametrize("name", stream.__all__)
def test_every_name_exists(name: str) -> None:
    assert getattr(stream, name) is not None
    assert name in dir(stream)


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="Telegraph"):
        _ = stream.Telegraph


def test_a_stream_over_a_socket_waits_for_no_engine_and_no_configuration() -> None:
    code = (
        "import sys; from qanat.stack.stream import TcpStream, memory_pipe\n"
        "from qanat.stack.relaying import relay\n"
        "print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "qanat.stack.stream.sockets" in loaded
    assert not loaded & {"qanat._engine", "pydantic", "click"}
