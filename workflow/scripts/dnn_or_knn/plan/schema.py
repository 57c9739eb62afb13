"""The configuration's schema: values checked against it, defaults filled in, one clear sentence for what does not fit."""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from ..runtime.errors import UserError, nearest
from .registry import MEASURES

SCHEMA_FILE = Path(__file__).resolve().parents[3] / "schemas" / "config.schema.yaml"
NUMBER_AS_TEXT = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")
#: Mappings and lists inside one another; more is a YAML alias of itself.
DEEPEST = 30
#: The mappings whose keys are steps, whole numbers.
STEPS = re.compile(r"subjects\.[^.]+\.(checkpoints|features)")
#: JSON schema's types in words.
TYPES = {
    "object": "keys with values",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
#: Patterns in words.
PATTERNS = {
    "^[a-z0-9][a-z0-9_-]*$": "lower-case letters, digits, - and _, the first a letter or digit",
}
BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
Schema = dict[str, Any]
#: A whole number is one that is written as one: 200.0 would be another folder, another specification.
Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _checker, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@functools.cache
def load_schema() -> Schema:
    """Return the configuration's JSON schema, which nobody may change; the registry's measures are switches in it, off."""
    schema = yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))
    for name, entry in MEASURES.items():
        switch = {"type": "boolean", "default": False, "description": entry["description"]}
        schema["properties"]["measures"]["properties"][name] = switch
    return schema


def check(value: Any, schema: Schema, where: str) -> None:
    """Raise `UserError` with the first error of `value` against `schema`, in words."""
    plain(value, where)
    errors = sorted(Validator(schema).iter_errors(value), key=lambda error: [str(p) for p in error.path])
    if errors:
        raise UserError(_sentence(errors[0], where))


def plain(value: Any, where: str, path: str = "", depth: int = 0) -> None:
    """Raise `UserError` for what no schema speaks of: keys that are no texts, numbers that are not finite, endless nesting."""
    if depth > DEEPEST:
        raise UserError(f"{where}: {path.split('.')[0]} is nested without end; a YAML alias holds itself, write it out")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {path} is {in_yaml(value)}, not a finite number; write a number")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, int) and not isinstance(key, bool) and STEPS.fullmatch(path):
                key = str(key)
            if not isinstance(key, str):
                inside = f" in {path}" if path else ""
                raise UserError(f"{where}: the key {in_yaml(key)}{inside} is no text; write it in quotes")
            plain(item, where, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            plain(item, where, f"{path}[{position}]", depth + 1)


def fill(value: Any, schema: Schema, definitions: Schema | None = None) -> None:
    """Fill in the defaults of a checked value, in place, however deep, whether or not the parent object was there."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    schema = definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    if isinstance(value, dict):
        entries = schema.get("additionalProperties")
        if isinstance(entries, dict):
            for entry in value.values():
                fill(entry, entries, definitions)
        for key, child in schema.get("properties", {}).items():
            if key not in value and ("default" in child or child.get("properties")):
                value[key] = copy.deepcopy(child.get("default", {}))
            if key in value:
                fill(value[key], child, definitions)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            fill(item, schema["items"], definitions)


def in_yaml(value: Any, length: int = 60) -> str:
    """Return a value as YAML writes it on one line, texts in quotes, cut to a length."""
    if isinstance(value, str):
        text = f"'{value}'"
    else:
        try:
            text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
        except (yaml.YAMLError, RecursionError):
            text = str(value)
        text = " ".join(text.removesuffix("...\n").split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _sentence(error: ValidationError, where: str) -> str:
    """Return a validation error as: where, what is wrong, what is allowed."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    path = path or "the top level"
    value: Any = error.instance
    schema: Any = error.schema
    rule: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        unknown = next(str(key) for key in value if key not in known)
        inside = "" if path == "the top level" else f" in {path}"
        return f"{where}: unknown key '{unknown}'{inside}{nearest(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in rule if key not in value)
        return f"{where}: {path} lacks the key '{missing}'; add it"
    if error.validator == "enum":
        allowed = [item if isinstance(item, str) else in_yaml(item) for item in rule]
        close = nearest(str(value), allowed) if isinstance(value, str) else ""
        return f"{where}: {path} is {in_yaml(value)}{close}; allowed: {', '.join(allowed)}"
    said = f"{where}: {path} {_broken(error, value, rule)}"
    meaning = schema.get("description")
    return said + (f"; it means: {meaning}" if meaning else "")


def _broken(error: ValidationError, value: Any, rule: Any) -> str:
    """Return which rule a value breaks, in words."""
    if error.validator == "type":
        if isinstance(value, str) and NUMBER_AS_TEXT.match(value):
            return f"is the text '{value}', not a number; YAML wants a dot and a sign, such as 1.0e-3"
        wanted = " or ".join(TYPES[name] for name in ([rule] if isinstance(rule, str) else rule))
        return f"is {'empty' if value is None else in_yaml(value)}, not {wanted}"
    if error.validator in BOUNDS:
        return f"is {in_yaml(value)}, but must be {BOUNDS[error.validator]} {in_yaml(rule)}"
    if error.validator == "pattern":
        # A name that is a key stands in the path of what holds it.
        verb = (
            f"has the name {in_yaml(value)}"
            if "propertyNames" in error.absolute_schema_path
            else f"is {in_yaml(value)}"
        )
        return f"{verb}; use {PATTERNS[rule]}"
    if error.validator == "uniqueItems":
        twice = next(item for position, item in enumerate(value) if item in value[:position])
        return f"holds {in_yaml(twice)} twice; keep one"
    if error.validator in ("minItems", "minProperties", "minLength"):
        return f"is {in_yaml(value)}, empty; give at least {rule}"
    if error.validator == "maxLength":
        return f"is {in_yaml(value)}, {len(value)} characters; shorten it to {rule}"
    return f"is {in_yaml(value)}: {error.message}"
