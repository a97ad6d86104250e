"""What is wrong with a run's file, in the file's own words: key, found value, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

Place = tuple[int | str, ...]


def mistakes(error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any]) -> list[str]:
    """One line per wrong key; where a key may be of several types, one line names them all."""
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        place = _place(detail["loc"], raw)
        line = _line(dict(detail), place, model)
        key = dotted(place)
        if key in lines and detail["type"].endswith("_type"):
            lines[key] += f" or {_rule(dict(detail))}"
        else:
            lines[key] = line
    return list(lines.values())


def dotted(place: Place) -> str:
    """A key as TOML has it, elements of lists by number: `logs[0].columns.user`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as `X`, `X | None` or `tuple[X, ...]`, not one by free keys."""
    if get_origin(annotation) is dict:
        return None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := nested_model(inner))), None)


def known_keys(model: type[BaseModel], prefix: Place = ()) -> Iterator[Place]:
    """Every key of a settings class and of those inside it."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        if inner := nested_model(field.annotation):
            yield from known_keys(inner, (*prefix, name))


def _place(location: Place, raw: Any) -> Place:
    """The part of an error's location that is in the file; the rest names alternatives of a type."""
    place: list[int | str] = []
    for part in location:
        if not isinstance(raw, dict | list):
            break
        place.append(part)
        inside = isinstance(part, int) or part in raw
        raw = raw[part] if inside else None  # type: ignore[index]
    return tuple(place)


def _line(detail: dict[str, Any], place: Place, model: type[BaseModel]) -> str:
    key = dotted(place)
    if detail["type"] == "extra_forbidden":
        return _unknown(place, model)
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "value_error":
        message = detail["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    return f"{key} is {_shown(detail['input'])}, must be {_rule(detail)}"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


_LIMITS = {
    "greater_than_equal": ("≥", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("≤", "le"),
    "less_than": ("<", "lt"),
}
_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a table",
}


def _rule(detail: dict[str, Any]) -> str:
    context = detail.get("ctx", {})
    if detail["type"] in _LIMITS:
        sign, name = _LIMITS[detail["type"]]
        return f"{sign} {context[name]}"
    if detail["type"] == "literal_error":
        return f"one of {context['expected']}"
    if detail["type"] == "string_pattern_mismatch":
        return "letters, digits, '.', '_' and '-' only, not starting with '.' or '-'"
    if detail["type"] in ("too_short", "string_too_short"):
        return f"at least {context['min_length']} long"
    return _TYPES.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")


def _unknown(place: Place, model: type[BaseModel]) -> str:
    """An unknown key, with the nearest known one: first among its neighbours, then anywhere."""
    where, name = tuple(part for part in place[:-1] if isinstance(part, str)), str(place[-1])
    every = list(known_keys(model))
    beside = [key for key in every if key[:-1] == where]
    guess = _nearest(name, beside) or _nearest(name, every)
    hint = f"; did you mean {dotted(guess)}?" if guess else ""
    return f"{dotted(place)} is no known key{hint} (known here: {', '.join(str(key[-1]) for key in beside)})"


def _nearest(name: str, keys: list[Place]) -> Place | None:
    close = difflib.get_close_matches(name, [str(key[-1]) for key in keys], n=1)
    return next((key for key in keys if close and key[-1] == close[0]), None)
