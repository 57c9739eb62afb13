"""Print docs/configuration.md: every key of the configuration, from the schema and the registry.

python workflow/scripts/configuration_table.py > docs/configuration.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dnn_or_knn.plan.registry import ANY_ARCHITECTURE, ANY_DATASET, ARCHITECTURES, DATASETS, LOADERS, NAMED, PROBES
from dnn_or_knn.plan.schema import load_schema

HEAD = """# Configuration

Written by `make docs` from `workflow/schemas/config.schema.yaml` and `workflow/scripts/dnn_or_knn/plan/registry.py`; do not edit.

`config.yaml` is the paper. An overlay given with `--configfile` changes single values of it: mappings are merged,
lists are replaced as a whole, and an entry of `datasets`, `architectures`, `probes` or `choices` set to null is dropped,
and with a data set or an architecture the runs on it.
"""


def rows(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, values, default, meaning) of every property, however deep."""
    for name, child in schema.get("properties", {}).items():
        child = definitions[child["$ref"].rsplit("/", 1)[1]] if "$ref" in child else child
        key = f"{prefix}{name}"
        required = "" if child.get("properties") else f"required {child.get('x-default', '')}".strip()
        default = json.dumps(child["default"]) if "default" in child else required
        yield key, values(child), default, child.get("description", "")
        yield from rows(child, definitions, f"{key}.")
        if isinstance(child.get("additionalProperties"), dict):
            yield from rows(child["additionalProperties"], definitions, f"{key}.<name>.")
        items = child.get("items", {})
        if "$ref" in items and name != "more_runs":
            yield from rows(definitions[items["$ref"].rsplit("/", 1)[1]], definitions, f"{key}[].")


def values(schema: dict[str, Any]) -> str:
    """Return what a key may hold, in words."""
    if "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type", "")
    words = " or ".join(kind) if isinstance(kind, list) else kind
    words = {"array": "list", "object": "mapping"}.get(words, words)
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return " ".join([words, ", ".join(bounds)]).strip()


def table(entries: Iterator[tuple[str, str, str, str]]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, allowed, default, meaning in entries:
        shown = default if default.startswith("required") else f"`{default}`" if default else ""
        lines.append(f"| `{key}` | {allowed.replace('|', chr(92) + '|')} | {shown} | {meaning} |")
    return "\n".join(lines)


def main() -> None:
    schema = load_schema()
    definitions = schema["$defs"]
    parts = [HEAD, table(rows(schema, definitions))]
    parts.append("\n## Own data sets\n\nOptions of every data set:\n")
    parts.append(table(rows({"properties": ANY_DATASET}, {})))
    for name, entry in LOADERS.items():
        parts.append(f"\n### `loader: {name}`\n\n" + table(rows({"properties": entry["options"]}, {})))
    parts.append("\n## Networks by name\n\nOptions of every network:\n")
    parts.append(table(rows({"properties": ANY_ARCHITECTURE}, {})) + "\n\nOf one of torchvision, timm or your own:\n")
    parts.append(table(rows({"properties": NAMED["options"]}, {})))
    for title, registry in (("Data sets", DATASETS), ("Architectures", ARCHITECTURES), ("Probes", PROBES)):
        parts.append(f"\n## {title}\n")
        for name, entry in registry.items():
            parts.append(f"### `{name}`\n")
            options = {"properties": entry["options"]}
            parts.append(table(rows(options, {})) + "\n" if entry["options"] else "No options.\n")
    print("\n".join(parts).rstrip())


if __name__ == "__main__":
    main()
