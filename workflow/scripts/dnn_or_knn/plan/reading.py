"""Configuration files: what is wrong with one, with its line, before Snakemake reads it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..runtime.errors import UserError


def readable(file: str | Path) -> None:
    """Raise `UserError` if a configuration file cannot be read, or is not what it should be."""
    if said := mistake_in(file):
        raise UserError(said)


def mistake_in(file: str | Path) -> str | None:
    """Return what is wrong with a configuration file, in one sentence with its line; None if nothing is."""
    path = Path(file)
    if path.is_dir():
        return f"{file} is a folder, not a configuration file; name a file in it"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        there = ", ".join(sorted(str(p) for pattern in ("*.yaml", "config/*.yaml") for p in path.parent.glob(pattern)))
        return f"there is no configuration file {file}" + (f"; there are: {there}" if there else "; check its folder")
    except OSError as error:
        return f"{file} cannot be read ({error.strerror}); check its permissions"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"{file}, line {line}: the byte 0x{data[error.start]:02x} is no UTF-8; save the file as UTF-8"
    return _mistake(file, text)


def _mistake(file: str | Path, text: str) -> str | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if Path(file).suffix == ".json":
            where = f", line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ": too deep"
            return f"{file}{where}; mend the JSON"
        try:
            node = yaml.compose(text, yaml.SafeLoader)
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            return _yaml_error(file, error)
        except (ValueError, RecursionError) as error:
            return f"{file} holds a value that YAML cannot read ({error}); write it as a text in quotes"
    else:
        node = None
        with contextlib.suppress(yaml.YAMLError):  # some JSON is no YAML
            node = yaml.compose(text, yaml.SafeLoader)
    if said := repeated_key(node):
        return f"{file}: {said}"
    if content is not None and not isinstance(content, dict):
        return f"{file} holds no keys; write `key: value` lines, such as `seeds: [0, 1]`"
    return None


def _yaml_error(file: str | Path, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        problem = " ".join(str(error.problem).split())
        return f"{file}, line {error.problem_mark.line + 1}: {problem}; mend the YAML"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{file}: the character U+{ord(str(error.character)):04X} at place {error.position} is none of YAML's; remove it"
    return f"{file}: {' '.join(str(error).split())}; mend the YAML"


def repeated_key(root: Any) -> str | None:
    """Return which key a YAML node gives twice in one mapping: the first would be lost in silence."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, tuple[str, int]] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if (same := _as_read(key)) in lines:
                    first, before = lines[same]
                    again = "again" if name == first else f"as '{name}'"
                    return f"the key '{first}' stands in line {before} and {again} in line {line}; keep one"
                lines[same] = name, line
                waiting.append(value)
    return None


def _as_read(key: Any) -> str:
    """Return what a key of YAML is read as, as text: 0 for 00."""
    return str(yaml.safe_load(key.value) if key.tag == "tag:yaml.org,2002:int" else key.value)


# Which file a mistake stands in.

#: What the sentences of a configuration's mistakes begin with: a path of keys, or an unknown key and where it is.
UNKNOWN = re.compile(
    r"^config: (?:(?P<path>[\w.\[\]-]+): )?unknown key '(?P<key>[^']*)'(?: in (?P<inside>[\w.\[\]-]+))?"
)
PATH = re.compile(r"^config: (?:the key \S+ in )?(?P<path>[\w-]+(?:[.\[][\w\]-]+)*)(?:: (?P<more>[\w.-]+))?")
STEP = re.compile(r"[^.\[\]]+")


def with_source(sentence: str, sources: Mapping[str, Any]) -> str:
    """Return a sentence about the configuration with the file, or option, that its value comes from.

    Parameters
    ----------
    sources: name → content, each overriding those before: mappings key by key, and lists as a whole.
    """
    found = UNKNOWN.match(sentence) or PATH.match(sentence)
    if not found:
        return sentence
    parts = found.groupdict()
    words = [parts.get(name) for name in ("path", "inside", "more", "key")]
    steps = [step for word in words if word for step in STEP.findall(word)]
    holder, deepest = None, 1
    for name, content in sources.items():
        depth, in_list = _depth(content, steps)
        if depth >= deepest or in_list:
            holder, deepest = name, depth
    return sentence.replace("config: ", f"{holder}: ", 1) if holder else sentence


def _depth(content: Any, steps: list[str]) -> tuple[int, bool]:
    """Return how many steps into a configuration exist there, and whether they come to a list."""
    in_list = False
    for depth, step in enumerate(steps):
        in_list = in_list or isinstance(content, list)
        if isinstance(content, Mapping) and step in content:
            content = content[step]
        elif isinstance(content, list) and step.isdigit() and int(step) < len(content):
            content = content[int(step)]
        else:
            return depth, in_list
    return len(steps), in_list
