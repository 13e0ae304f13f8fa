"""Health checks as they are configured."""

from typing import Any, get_args

import pytest

from qanat import plan
from qanat.config.models import Check
from qanat.errors import ConfigError
from qanat.plan import CheckPlan

__all__: list[str] = []


def test_defaults_are_those_of_plans() -> None:
    made, planned = Check(), CheckPlan()
    for name in ("kind", "interval", "timeout", "rise", "fall"):
        assert getattr(made, name) == getattr(planned, name)
    assert set(get_args(Check.model_fields["kind"].annotation)) == {
        "off",
        *get_args(plan.CheckKind),
    }


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "off"},
        {"kind": "tls", "interval": 0.5, "timeout": 1, "rise": 1, "fall": 100},
        {"kind": "http", "path": "/health?x", "host": "a.example:8080", "status": [200, 204]},
        {"kind": "udp", "send": "0x00", "expect": "pong"},
        {"kind": "off", "path": "/kept-for-later"},
    ],
)
def test_accepts(values: dict[str, Any]) -> None:
    made = Check.model_validate(values)
    assert made == Check.model_validate(made.model_dump(exclude_unset=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "ping"}, "must be one of off, tcp, tls, http or udp"),
        ({"interval": 0}, "must be a number from 0.001 to 86400"),
        ({"timeout": -1}, "must be a number from 0.001"),
        ({"interval": "5s"}, "must be a number"),
        ({"rise": 0}, "from 1 to 100"),
        ({"fall": 101}, "from 1 to 100"),
        ({"path": "/"}, 'is for checks of the kind http (kind = "http")'),
        ({"kind": "tcp", "send": "x"}, "is for checks of the kind udp"),
        ({"kind": "udp"}, "needs send beside it"),
        ({"kind": "udp", "send": ""}, "must not be empty"),
        ({"kind": "http", "path": "health"}, "is not the path of a request"),
        ({"kind": "http", "path": "/a\r\nb"}, "is not the path of a request"),
        ({"kind": "http", "host": "a b"}, "is not a Host"),
        ({"kind": "http", "status": [99]}, "from 100 to 599"),
        ({"kind": "http", "status": 200}, "must be a list"),
        ({"intervall": 5}, "did you mean interval?"),
    ],
)
def test_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Check(**values)
    assert message in str(caught.value)
