"""What pydantic found, in words for the person who wrote the configuration.

Knows the models (for ranges, words and the nearest known key) and errors; knows no file: where a
key stands is asked of the caller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from qanat.config.places import KeyPath, Place, dotted, printable
from qanat.config.table import Model
from qanat.config.words import nearest, words
from qanat.errors import ABSENT, Problem

__all__ = ["Locate", "explain", "nearest", "simple", "words"]

Locate: TypeAlias = Callable[[KeyPath], tuple[KeyPath, Place]]
"""From a path in the models to the path as written and where that is."""

_EXAMPLES: Final = {"listen": "0.0.0.0:5000", "remote": "example.com:443"}
_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
"""Of a URL: what is shown may end in a log."""
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def explain(
    error: ValidationError, model: type[Any], locate: Locate | None = None
) -> list[Problem]:
    """One problem for each mistake, in the order in which the models have their keys."""
    return [_problem(details, model, locate) for details in error.errors(include_url=False)]


def simple(value: object) -> object:
    """A value that can be shown in one line, or the marker for none."""
    if isinstance(value, str):
        return printable(_CREDENTIALS.sub("//***@", value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Python refuses to write numbers of more than 4300 digits.
        return value if value.bit_length() < 1024 else ABSENT
    if isinstance(value, float):
        return value
    return ABSENT


def _problem(details: Mapping[str, Any], model: type[Any], locate: Locate | None) -> Problem:
    # What is in angle brackets tells forms of one value apart, and is no key.
    path: KeyPath = tuple(
        part for part in details["loc"] if not (isinstance(part, str) and part[:1] == "<")
    )
    context: Mapping[str, Any] = details.get("ctx", {})
    value: object = details["input"]
    if context.get("at"):
        path = (*path, context["at"])
        value = value.get(context["at"]) if isinstance(value, Mapping) else ABSENT
        if isinstance(value, list):
            value = ABSENT
    field = _field(model, path)
    message, hint = _words_for(details["type"], value, path, context, field, model)
    if message is None:
        message = printable(str(details["msg"]))
    written, place = (path, Place()) if locate is None else locate(path)
    return Problem(
        message=message,
        file=place.file,
        line=place.line,
        column=place.column,
        key=dotted(written) or None,
        value=ABSENT if details["type"] in ("missing", "extra_forbidden") else simple(value),
        hint=hint,
    )


def _words_for(
    kind: str,
    value: object,
    path: KeyPath,
    context: Mapping[str, Any],
    field: FieldInfo | None,
    model: type[Any],
) -> tuple[str | None, str | None]:
    key = path[-1] if path else ""
    match kind:
        case "wrong" | "address" | "not_yet":
            return context.get("message"), context.get("hint")
        case "missing":
            example = _EXAMPLES.get(str(key))
            return "is missing", None if example is None else f'{key} = "{example}"'
        case "extra_forbidden":
            meant = nearest(str(key), _table(model, path[:-1]).model_fields)
            return "unknown key", None if meant is None else f"did you mean {meant}?"
        case "literal_error":
            return _not_one_of(value, field)
        case "bool_type":
            return "must be true or false", _as_flag(value)
        case "int_type":
            return f"must be {_range(field, 'a whole number')}{_found(value)}", _as_whole(value)
        case "float_type" | "finite_number":
            return f"must be {_range(field, 'a number')}{_found(value)}", _as_number(value)
        case "greater_than_equal" | "less_than_equal":
            whole = field is None or field.annotation is not float
            return f"must be {_range(field, 'a whole number' if whole else 'a number')}", None
        case "string_type":
            return f"must be text{_found(value)}", _as_text(value, str(key))
        case "string_too_short":
            return "must not be empty", None
        case "string_too_long":
            return f"must have at most {context['max_length']} characters", None
        case "string_unicode":
            return "is not valid text", None
        case "list_type" | "tuple_type":
            return f"must be a list{_found(value)}", _as_list(value)
        case "too_short":
            return "must not be empty", "take the key out to use the default"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a table{_found(value)}", None
        case _:
            return None, None


def _not_one_of(value: object, field: FieldInfo | None) -> tuple[str, str | None]:
    known = _literals(None if field is None else field.annotation)
    meant = nearest(value, known) if isinstance(value, str) else None
    hint = f"did you mean {meant}?" if meant else None
    if meant in ("true", "false"):
        hint = f"{meant}, without quotes"
    return f"must be one of {words(known)}", hint


def _literals(annotation: object) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(
            str(word).lower() if isinstance(word, bool) else str(word)
            for word in get_args(annotation)
        )
    return tuple(word for part in get_args(annotation) for word in _literals(part))


def _range(field: FieldInfo | None, what: str) -> str:
    low, high = _bounds(field)
    if low is not None and high is not None and high - low == 1:
        return f"{low} or {high}"
    if low is not None and high is not None:
        return f"{what} from {low} to {high}"
    return what


def _bounds(field: FieldInfo | None) -> tuple[float | None, float | None]:
    low = high = None
    for part in () if field is None else _metadata(field):
        low = getattr(part, "ge", low)
        high = getattr(part, "le", high)
    return low, high


def _metadata(field: FieldInfo) -> Iterable[object]:
    """Also of an ``Annotated`` inside of a union, where pydantic leaves it."""
    yield from field.metadata
    pending = list(get_args(field.annotation))
    while pending:
        part = pending.pop()
        if isinstance(part, FieldInfo):
            yield from part.metadata
        pending += getattr(part, "__metadata__", ())
        pending += get_args(part)


def _as_flag(value: object) -> str | None:
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word in _TRUE:
        return "true, without quotes" if isinstance(value, str) else "true"
    if word in _FALSE:
        return "false, without quotes" if isinstance(value, str) else "false"
    return None


def _as_whole(value: object) -> str | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return f"{int(value)}, without quotes"
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return f"{value:.0f}"
    return None


def _as_number(value: object) -> str | None:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return f"{value.strip()}, without quotes" if math.isfinite(number) else None
    return None


def _as_text(value: object, key: str) -> str | None:
    if isinstance(value, bool):
        return "with quotes" if key not in _EXAMPLES else f'as "{_EXAMPLES[key]}"'
    if isinstance(value, int) and key in _EXAMPLES and 0 < value < 65_536:
        host = _EXAMPLES[key].partition(":")[0]
        return f'as "{host}:{value}"'
    if isinstance(value, int | float):
        return "with quotes"
    return None


def _as_list(value: object) -> str | None:
    return f'["{printable(value)}"]' if isinstance(value, str) and len(value) < 60 else None


def _found(value: object) -> str:
    """What stands there instead, when it is too big to be shown."""
    if isinstance(value, Mapping | Model):
        return ", not a table"
    if isinstance(value, list | tuple):
        return ", not a list"
    if value is None:
        return ", not null"
    if isinstance(value, str | int | float | bool):
        return ""
    return f", not a {type(value).__name__}"


def _field(model: type[Any], path: KeyPath) -> FieldInfo | None:
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return None
    fields: dict[str, FieldInfo] = _table(model, tuple(names[:-1])).model_fields
    return fields.get(names[-1])


def _table(model: type[Any], path: KeyPath) -> type[Any]:
    """The model of the table at a path."""
    for name in path:
        field = model.model_fields.get(name) if isinstance(name, str) else None
        if field is not None:
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: object) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
