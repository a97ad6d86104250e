"""Errors in a run's file, described as the file has it: key, found value, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

KeyPath = tuple[int | str, ...]

NAME_RULE = "letters, digits, '.', '_' and '-' only, not starting with '.' or '-'"
"""Of names that become a component of a path, such as a run's."""


def describe_errors(error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any]) -> list[str]:
    """One line for each wrong key; if a key may be of several types, the line names them all."""
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        if _follows_from_others(dict(detail)):
            continue
        path = _key_path(detail["loc"], raw)
        line = _line(dict(detail), path, model)
        key = dotted(path)
        if key in lines and detail["type"].endswith("_type"):
            lines[key] += f" or {_rule(dict(detail))}"
        else:
            lines[key] = line
    return list(lines.values())


def _follows_from_others(detail: dict[str, Any]) -> bool:
    """Whether a list is only too short because its wrong elements, of which each has a line, do not count."""
    return detail["type"] == "too_short" and bool(len(detail["input"]) >= detail["ctx"]["min_length"])


def dotted(path: KeyPath) -> str:
    """A key as in TOML, with elements of lists by number: `logs[0].columns.user`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class in an annotation such as `X`, `X | None` or `tuple[X, ...]`; None for `dict[str, X]`."""
    if get_origin(annotation) is dict:
        return None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := nested_model(inner))), None)


def known_keys(model: type[BaseModel], prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """All keys of a settings class and of the classes inside it."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        if inner := nested_model(field.annotation):
            yield from known_keys(inner, (*prefix, name))


def _key_path(location: KeyPath, raw: Any) -> KeyPath:
    """The steps of an error's location that are in the file; the others name alternatives of a type."""
    path: list[int | str] = []
    for step in location:
        if not isinstance(raw, dict | list):
            break
        path.append(step)
        exists = isinstance(step, int) or step in raw
        raw = raw[step] if exists else None  # type: ignore[index]
    return tuple(path)


def _line(detail: dict[str, Any], path: KeyPath, model: type[BaseModel]) -> str:
    key = dotted(path)
    if detail["type"] == "extra_forbidden":
        return _unknown_key(path, model)
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "value_error":
        message = detail["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    value = detail["input"]
    shown = str(value).lower() if isinstance(value, bool) else "a table" if isinstance(value, dict) else repr(value)
    if detail["type"] == "tuple_type":
        rule = "tables under [[logs]]" if path == ("logs",) else f"a list, e.g. {_as_list(value)}"
        return f"{key} is {shown}, must be {rule}"
    return f"{key} is {shown}, must be {_rule(detail)}"


def _as_list(value: Any) -> str:
    """The list that was probably meant: `1,2` is [1, 2], anything else the only element."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else []
    return f"[{', '.join(parts)}]" if parts and all(part.isdecimal() for part in parts) else f"[{value!r}]"


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
        return NAME_RULE
    if detail["type"] in ("too_short", "string_too_short"):
        return f"at least {context['min_length']} long"
    if detail["type"] == "string_too_long":
        return f"at most {context['max_length']} long"
    return _TYPES.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")


def _unknown_key(path: KeyPath, model: type[BaseModel]) -> str:
    """A message about an unknown key, with the most similar key of the same table or, if there is none, of any."""
    table, name = tuple(step for step in path[:-1] if isinstance(step, str)), str(path[-1])
    keys = list(known_keys(model))
    siblings = [key for key in keys if key[:-1] == table]
    guess = _nearest(name, siblings) or _nearest(name, keys)
    hint = f"; did you mean {dotted(guess)}?" if guess else ""
    known = f" (known here: {', '.join(str(key[-1]) for key in siblings)})" if siblings else ""
    return f"{dotted(path)} is not a known key{hint}{known}"


def _nearest(name: str, keys: list[KeyPath]) -> KeyPath | None:
    close = difflib.get_close_matches(name, [str(key[-1]) for key in keys], n=1)
    return next((key for key in keys if close and key[-1] == close[0]), None)
