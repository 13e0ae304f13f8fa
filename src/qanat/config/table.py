"""What all tables of a configuration have in common. Knows no key."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Model"]


class _Telling(type(BaseModel)):  # type: ignore[misc]  # the type has no public name
    """Makes a wrong value in Python a :class:`ConfigError`, as it is in a file.

    Only the call of a class comes by here. Nested validation does not, so that all mistakes of a
    file are still collected into one error.
    """

    if not TYPE_CHECKING:

        def __call__(cls, *args: object, **kwargs: object) -> object:
            try:
                return super().__call__(*args, **kwargs)
            except ValidationError as error:
                from qanat.config.explain import explain
                from qanat.errors import ConfigError

                raise ConfigError(explain(error, cls)) from None


if TYPE_CHECKING:
    _Root = BaseModel
else:

    class _Root(BaseModel, metaclass=_Telling):
        pass


class Model(_Root):
    """A table: frozen, and it knows all of its keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True
    )
