"""Active health checks: what remotes are asked, and what an answer means."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StrictFloat, StrictInt, StrictStr, model_validator

from qanat.config.octets import OctetsError, parse_octets
from qanat.config.refusal import refuse
from qanat.config.table import Model

__all__ = ["MOST_BYTES", "Check"]

MOST_BYTES: Final = 1024
SHORTEST: Final = 0.001
LONGEST: Final = 86_400

_OF_KIND: Final = {
    "path": "http",
    "host": "http",
    "status": "http",
    "send": "udp",
    "expect": "udp",
}


def _octets(text: str) -> str:
    try:
        parse_octets(text, MOST_BYTES)
    except OctetsError as error:
        refuse(str(error), error.hint)
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        refuse("is not the path of a request", "as /health")
    return text


def _host(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        refuse("is not a Host", "as a.example")
    return text


_Octets = Annotated[StrictStr, AfterValidator(_octets)]
_Time = Annotated[StrictFloat, Field(ge=SHORTEST, le=LONGEST, allow_inf_nan=False)]
_Count = Annotated[StrictInt, Field(ge=1, le=100)]
_Status = Annotated[StrictInt, Field(ge=100, le=599)]


class Check(Model):
    """Asks every remote again and again whether it is there. New flows go to those that are; when
    none is, to all as if there were no checks."""

    kind: Literal["off", "tcp", "tls", "http", "udp"] = "tcp"
    """`tcp` connects, `tls` completes a handshake, `http` reads the status of an answer, `udp`
    sends something and waits for something. `off` is for endpoints that want none when the file's
    `network` table has some."""

    interval: _Time = 5.0
    """Seconds between two checks of one remote. Fractions are allowed."""

    timeout: _Time = 2.0
    """Seconds that a check may take. Fractions are allowed."""

    rise: _Count = 2
    """How many good checks in a row bring a remote back."""

    fall: _Count = 3
    """How many bad checks in a row take a remote out."""

    path: Annotated[StrictStr, AfterValidator(_path)] | None = None
    """For `http`: what is asked for; `/` when the key is missing."""

    host: Annotated[StrictStr, Field(min_length=1), AfterValidator(_host)] | None = None
    """For `http`: the Host of the request; the remote's own when the key is missing."""

    status: tuple[_Status, ...] = ()
    """For `http`: the answers that are good; 200 to 399 when the key is missing."""

    send: _Octets | None = None
    """For `udp`: what is sent, as text or in hexadecimal as `0x00ff`."""

    expect: _Octets | None = None
    """For `udp`: what the answer has to begin with; any answer is good when the key is missing."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> Check:
        for key, kind in _OF_KIND.items():
            if key in self.model_fields_set and self.kind not in (kind, "off"):
                refuse(f"is for checks of the kind {kind}", f'kind = "{kind}"', at=key)
        if self.kind == "udp" and self.send is None:
            refuse("needs send beside it", "what a healthy target answers to", at="kind")
        return self
