"""One sentence for what Snakemake says in many lines."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
#: The Snakefile's rules without wildcards.
TARGETS = "DNN_OR_KNN_TARGETS"
#: Where Snakemake's command line reads `--configfile` and `--config`, before any Snakefile.
READING = ("_get_overwrite_config", "parse_config", "Config file is not valid")
#: Errors of ours and of Snakemake's that a sentence says all about.
KNOWN = ("WorkflowError", "MissingRuleException", "MissingInputException", "ApiError", "CliException", "LockException")
HEADER = re.compile(r"^\w+(?: in (?:rule \S+ in )?file \"[^\"]*\", line \d+)?:\s*\n")
FRAME = re.compile(r'^ {2,}File "[^"]*", line \d+, in .*\n?', re.MULTILINE)
MISSING = re.compile(r"^No rule to produce (.*?)(?: \(if you use input functions.*)?$", re.MULTILINE)
PAIR = re.compile(r"[A-Za-z_][\w-]*\w=")


def sentence(kind: str, text: str, words: Sequence[str]) -> str:
    """Return what Snakemake says of an exception without its frames, or the whole of it if it is a fault of a program.

    Parameters
    ----------
    kind: the exception's class.
    text: what Snakemake says, with frames of the stack.
    words: the command line.
    """
    if any(mark in text for mark in READING) and (said := _command_line(words)):
        return said
    if missing := MISSING.search(text):
        return _no_target(missing[1])
    if "Target rules may not contain wildcards" in text:
        return f"a rule of many jobs is no target; name a file that one of them makes, or one of: {_targets()}"
    if kind in KNOWN:
        return FRAME.sub("", HEADER.sub("", text)).strip().removeprefix("Error: ")
    return text.strip()


def _targets() -> str:
    return ", ".join(os.environ.get(TARGETS, "").split())


def _no_target(name: str) -> str:
    if "/" in name or not _targets():
        return f"no rule makes {name}; check its name, and that --configfile names the experiment that it belongs to"
    near = difflib.get_close_matches(name, os.environ[TARGETS].split(), n=1)
    return f"there is no target '{name}'{f' (did you mean {near[0]}?)' if near else ''}; there are: {_targets()}"


def values(words: Sequence[str], *options: str) -> list[str]:
    """Return what follows any of the options on a command line, up to the next option."""
    found, taking = [], False
    for word in words:
        name, sign, value = word.partition("=")
        if word.startswith("-"):
            taking = name in options
            found += [value] if taking and sign else []
        elif taking:
            found.append(word)
    return found


def _command_line(words: Sequence[str]) -> str | None:
    """Return what is wrong with the command line's `--configfile` or `--config`."""
    for word in values(words, "--config", "-C"):
        if not PAIR.match(word):
            return f"--config has '{word}', which is no key=value; write it as in --config 'seeds=[0, 1]' 'data={{root: /datasets}}'"
    sys.path.insert(0, str(SCRIPTS))
    from dnn_or_knn.plan.reading import mistake_in

    for file in [*map(str, Path().glob("config.yaml")), *values(words, "--configfile", "--configfiles")]:
        if said := mistake_in(file):
            return said + ("" if Path(file).suffix else "; a target stands before the options")
    return None
