"""Loops for tests of proxies: those of the framework."""

from tests.stack.conftest import run

__all__ = ["run"]
