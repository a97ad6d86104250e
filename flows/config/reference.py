"""The reference of a run's file: a TOML file of all keys, with comments made from the settings' docstrings."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_contracts.settings.base import Settings
from flows.config.errors import nested_model
from flows.config.run_config import RunConfig

_LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
_WORDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "none"}


def reference() -> str:
    """A run's file with every key at its default, with type and meaning; keys without a default are commented out.

    The text is itself a valid run of a generated world.
    """
    head = "# Every key of a run's TOML file, at its default. Keep what you change: `edda config > my.toml`."
    return "\n".join([head, *_table(RunConfig, ""), ""])


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Key → the docstring below it in its settings class; empty where there is none.

    pydantic has `use_attribute_docstrings` for this, which parses the sources of all settings at every start.
    """
    texts = dict.fromkeys(model.model_fields, "")
    for owner in reversed([each for each in model.__mro__ if issubclass(each, Settings)]):
        (definition,) = ast.parse(inspect.getsource(owner)).body
        for field, text in pairwise(getattr(definition, "body", [])):
            match field, text:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(docstring))):
                    texts[name] = inspect.cleandoc(docstring)
    return texts


def _table(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Lines of a settings class: its own keys, then the tables inside it."""
    schemas, texts = model.model_json_schema(), meanings(model)
    for name, field in model.model_fields.items():
        if nested_model(field.annotation) is None:
            yield ""
            yield from _comment(texts[name])
            yield f"# ({describe_type(schemas['properties'][name], schemas)})"
            yield assignment(name, field, prefix)
    for name, field in model.model_fields.items():
        if inner := nested_model(field.annotation):
            title = table_title(name, field, prefix)
            lines = ["", *_comment(texts[name]), title, *_table(inner, f"{prefix}{name}.")]
            off = title.startswith("[[") or prefix.startswith("logs")
            yield from (f"# {line}" if off and line and not line.startswith("#") else line for line in lines)


def table_title(name: str, field: FieldInfo, prefix: str) -> str:
    """A table's line in the file: `[train]`, or `[[logs]]` if there may be several."""
    return f"[[{prefix}{name}]]" if str(field.annotation).startswith("tuple") else f"[{prefix}{name}]"


def _comment(text: str) -> list[str]:
    """A docstring of one or more lines as comments."""
    return [f"# {line}".rstrip() for line in text.splitlines()]


def assignment(name: str, field: FieldInfo, prefix: str) -> str:
    """A key's line in the file, with its default; a comment if it has none."""
    if name == "name" and not prefix:
        return 'name = "my-run"'
    if name == "protocol" and prefix:
        return f"# {name} = (the run's)"
    if field.is_required() or field.default is None:
        return f"# {name} ="
    return f"{name} = {json.dumps(field.default, ensure_ascii=False)}"


def _shown(limit: float) -> str:
    """A number; large powers of two as `2^63`."""
    power = int(limit).bit_length() - 1
    return f"2^{power}" if power > 31 and limit == 2**power else str(limit)


def describe_type(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A short text for a JSON schema: `integer, ≥ 1`, `one of "a", "b"`, `list of: integer, ≥ 1`."""
    if "$ref" in schema:
        return describe_type(schemas["$defs"][schema["$ref"].rsplit("/", 1)[-1]], schemas)
    if "anyOf" in schema:
        return " or ".join(describe_type(choice, schemas) for choice in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "object":
        inner = schema["additionalProperties"]
        return f"table of: {describe_type(inner, schemas)}" if isinstance(inner, dict) else "table"
    if schema.get("type") == "array":
        return f"list of: {describe_type(schema['items'], schemas)}"
    limits = [text.format(_shown(schema[key])) for key, text in _LIMITS.items() if key in schema]
    return ", ".join([_WORDS.get(schema.get("type", ""), "text"), *limits])
