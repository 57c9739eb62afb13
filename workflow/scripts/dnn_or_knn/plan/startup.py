"""What happens in the Snakefile before any rule: check the configuration, freeze it, count GPUs.

Remote jobs (SLURM) parse the Snakefile again on their node, where the configuration and the code may have been
edited since. So the head writes what it started with to `results/<experiment>/.frozen.json`, and a remote job takes
its configuration from there and stops if the code is not the one that the head saw.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import yaml
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from ..features import dumps
from ..runtime.code_digest import SCRIPTS, code_digest, runtime_digest
from ..runtime.command_line import QUIET, RUNTIME
from ..runtime.errors import UserError, nearest
from ..runtime.files import bring_dates_back, read_json, remove, write_json, write_text
from . import atlas, machine, probing
from .configuration import PAPER, load_overlays
from .feasible import doubts
from .machine import local_gpus
from .reading import readable, with_source
from .runs import Experiment, create
from .schema import plain
from .specifications import MANIFESTS, Jobs
from .staleness import stale

WORKFLOW = SCRIPTS.parent
#: Tells remote jobs which experiment the head runs, even if its name is edited meanwhile.
EXPERIMENT = "DNN_OR_KNN_EXPERIMENT"
#: What the head started with, in the experiment's folder.
FROZEN = ".frozen.json"
#: Where `results.py why` wants to read which results are stale.
WHY = "DNN_OR_KNN_WHY"
#: What may be asked for by name: the logger names it to whoever misspells one.
TARGETS = "DNN_OR_KNN_TARGETS"
#: Looked for once a run of Snakemake.
found_stale = functools.cache(stale)


def start(
    config: Mapping[str, Any], files: Iterable[str | Path], given: Mapping[str, Any], *, remote: bool, local: bool
) -> Jobs:
    """Return the jobs of the configured experiment; in a remote job, of the one that the head froze.

    Parameters
    ----------
    config: the files' configuration and, on top, what the command line gave.
    files: those files, each overriding those before.
    given: what the command line gave, from `--config`.
    local: whether jobs run on this machine.
    """
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    if not remote:
        jobs = Jobs(_checked(config, list(files), as_in_a_file(given), local))
        jobs.kept_pieces = functools.cache(lambda: probing.kept(jobs, {task.manifest for task, _ in found_stale(jobs)}))
        return jobs
    os.environ.pop(QUIET, None)  # the logger runs beside the head, not here
    frozen = read_json(_frozen(os.environ.get(EXPERIMENT, str(config.get("experiment")))))
    if frozen["code"] != workflow_digest():
        raise UserError("the code under workflow/ changed while Snakemake was running; stop it and start it again")
    jobs = Jobs(create(frozen["config"]))
    jobs.kept_pieces = lambda: frozen["pieces"]
    return jobs


def _checked(config: Mapping[str, Any], files: list[str | Path], given: Any, local: bool) -> Experiment:
    """Return the experiment, or raise `UserError` naming the file or option that holds what is wrong."""
    for file in files:
        readable(file)
    sources = {os.path.relpath(file): load_configfile(file) for file in files} | ({"--config": given} if given else {})
    try:
        for name, content in sources.items():
            plain(content, name)
        dropped(sources)
        complete = copy.deepcopy(dict(config))
        update_config(complete, given)
        experiment = create(in_order(complete, load_overlays()))
        machine.refuse(experiment.config, experiment.runs, local=local)
        for doubt in doubts(experiment.config, experiment.runs):
            print(f"warning: {with_source(doubt, sources)}", file=sys.stderr)
    except UserError as error:
        raise UserError(with_source(str(error), sources)) from error
    return experiment


def dropped(sources: Mapping[str, Any]) -> None:
    """Raise `UserError` for a probe or a choice that is set to null, but that no file has."""
    for key, kind in (("probes", "probe"), ("choices", "choice")):
        blocks = [block for content in sources.values() if isinstance(block := (content or {}).get(key), Mapping)]
        have = {name for block in blocks for name, options in block.items() if options is not None}
        for name in (name for block in blocks for name in block if name not in have):
            raise UserError(f"config: {key} drops '{name}', which is no {kind}{nearest(name, have)}")


def in_order(value: Any, pattern: Any) -> Any:
    """Return mappings, however deep, with their keys in the order of `pattern`'s, and after them those that it lacks.

    Snakemake puts the keys of overlays and of `--config` first, and figures follow the order of the keys.
    """
    if not (isinstance(value, Mapping) and isinstance(pattern, Mapping)):
        return value
    return {key: in_order(value[key], pattern.get(key)) for key in [*pattern, *value] if key in value}


def as_in_a_file(value: Any) -> Any:
    """Return a value of `--config` as a file would hold it: Snakemake reads whatever is in brackets as text."""
    if isinstance(value, Mapping):
        return {key: as_in_a_file(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_in_a_file(item) for item in value]
    if not isinstance(value, str):
        return value
    with contextlib.suppress(yaml.YAMLError):
        read = yaml.safe_load(value)
        return read if read is None or isinstance(read, bool | int | float) else value
    return value


def forcing(jobs: Jobs, workflow: Any) -> Callable[[object], list[str]]:
    """Return the input function of the rule that all others follow from: it names no input, and forces what is stale.

    Snakemake calls it once its DAG is there and before it looks for what is to run. `--forcerun` would also make
    targets of what is forced. Nothing on disk changes, so that a dry run says what would run.
    """

    @functools.cache
    def force() -> None:
        found = found_stale(jobs)
        if path := os.environ.get(WHY):
            reasons = [{"rule": t.rule, "wildcards": t.wildcards, "reasons": r} for t, r in found]
            made = any(os.path.exists(f"{jobs.results}/{task.manifest}.json") for task in jobs.tasks)
            write_json(path, {"stale": reasons, "results": jobs.results if made else None})
        heeded = "params" in {str(trigger) for trigger in workflow.rerun_triggers}
        if heeded:
            workflow.dag.forcefiles.update(f"{jobs.results}/{task.manifest}.provenance.json" for task, _ in found)
        if found:
            print(
                f"{len(found)} results in {jobs.results} were made with other values, code or inputs than they would be now "
                f"(workflow/scripts/results.py why says which); "
                + ("they are stale" if heeded else "they stay as they are, since --rerun-triggers has no params"),
                file=sys.stderr,
            )

    def sources(_wildcards: object) -> list[str]:
        if workflow.is_main_process:
            force()
        return []

    return sources


def freeze(jobs: Jobs, running: Iterable[Any]) -> None:
    """Write down the configuration and the code that this run of Snakemake uses, and ready the results' folder.

    Dates that lie in the future are mended; features and probabilities that nobody will read any more are released.

    Parameters
    ----------
    running: Snakemake's jobs that are about to run.
    """
    results = Path(jobs.results)
    moved = bring_dates_back(results)
    if moved:
        print(f"{results}: {moved} files were dated in the future; they are dated now", file=sys.stderr)
    os.environ[EXPERIMENT] = jobs.config["experiment"]
    os.environ[RUNTIME] = runtime_digest()
    frozen = {"config": jobs.config, "code": workflow_digest(), "pieces": jobs.kept_pieces()}
    # In the order of the configuration, which is the order in figures.
    write_json(_frozen(jobs.config["experiment"]), frozen, sort_keys=False)
    _write_specifications(jobs)
    outputs = {str(path) for job in running for path in job.output}
    again = {f"{results}/{task.manifest}.json" for task, _ in found_stale(jobs)}
    if jobs.config["keep"]["features"] == "until-probed":
        for folder in _awaited(results, _readers(jobs, outputs | again)):
            print(f"{folder} is released: no probe of the configuration will read it", file=sys.stderr)
    for folder in probing.measured(jobs, outputs | again):
        remove(folder)
        print(f"{folder} is released: every measure of the configuration has read it", file=sys.stderr)


def _awaited(results: Path, readers: Set[tuple[Path, str]]) -> list[Path]:
    """Release the features that nobody will read, and mark the others for whoever will; return the released folders.

    A result that is made anew has no mark left from its extraction. Without one its features could go before its job begins, and
    it, or each piece of its search, would extract them again. Features that are gone are marked for several readers alone.
    """
    dumps.await_again(readers)
    for manifest, reader in readers:
        if dumps.marks_of(manifest).is_dir() and dumps.folder_of(manifest).is_dir():
            (dumps.marks_of(manifest) / reader).touch()
    return dumps.release(results, readers)


def _write_specifications(jobs: Jobs) -> None:
    """Write the specifications that are too long for a command line, and remove those of former runs."""
    wanted = {Path(word): task.spec for task in jobs.tasks if (word := jobs.word(task.spec)) != task.spec}
    folder = Path(jobs.results) / ".specs"
    for old in {*folder.glob("*")} - wanted.keys():
        remove(old)
    for path, spec in wanted.items():
        write_text(path, spec)


def _readers(jobs: Jobs, again: Set[str]) -> set[tuple[Path, str]]:
    """Return the features that have yet to be read, by their manifests, each with the probe or measure that reads them.

    It will in this run of Snakemake, or in a later one.

    Parameters
    ----------
    again: the manifests that will be made anew.
    """
    results = Path(jobs.results)
    readers = set()
    for task in jobs.tasks:
        made = f"{results}/{task.manifest}.json"
        if task.rule in ("probe", "passing_probe") and (made in again or not os.path.exists(made)):
            manifest = MANIFESTS["features"].format(**task.wildcards)
            readers.add((results / f"{manifest}.json", task.wildcards["probe"]))
        if task.rule == "measure_features" and (made in again or not os.path.exists(made)):
            reader = atlas.reader(task.wildcards)
            readers |= {(Path(path), reader) for path in atlas.reads(jobs, task.wildcards, "features")}
    return readers


def _frozen(experiment: str) -> Path:
    return Path("results") / experiment / FROZEN


def workflow_digest() -> str:
    """Return the digest of all rules, all code, and all tables that specifications are made from."""
    scripts = sorted(path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py"))
    tables = [
        SCRIPTS / "dnn_or_knn" / "plan" / "registry.py",
        *(WORKFLOW / "resources").glob("*.yaml"),
        *(WORKFLOW / "schemas").glob("*.yaml"),
    ]
    texts = [WORKFLOW.parent / "Snakefile", *sorted([*tables, *(WORKFLOW / "rules").glob("*.smk")])]
    parts = [code_digest(*scripts), runtime_digest(), *(path.read_text(encoding="utf-8") for path in texts)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def tell_targets(rules: Iterable[Any]) -> None:
    """Tell the logger, in the environment, which rules are targets: those without wildcards."""
    os.environ[TARGETS] = " ".join(rule.name for rule in rules if not rule.has_wildcards())


def configured(workflow: Any) -> tuple[list[str | Path], Mapping[str, Any]]:
    """Return Snakemake's configuration files, each overriding those before, and what `--config` gave.

    A module that is given a configuration has that one alone. Snakemake lists the files of `--configfile` first.
    """
    if workflow.modifier.skip_configfile:
        return [], {}
    files, overlays = workflow.configfiles, workflow.overwrite_configfiles
    return [*files[len(overlays) :], *overlays], workflow.config_settings.config


def overlays(configfiles: Iterable[str | Path]) -> str:
    """Return the overlays in use, separated by spaces; "config.yaml" without any."""
    return " ".join(os.path.relpath(name) for name in configfiles if Path(name) != PAPER) or PAPER.name


def scripts() -> str:
    """Return the folder of the stages' programs: as a short path in a checkout, else as an absolute one."""
    return str(SCRIPTS.relative_to(Path.cwd()) if SCRIPTS.is_relative_to(Path.cwd()) else SCRIPTS)


def gpu(device: str, local: Callable[[], bool], beside: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the resources by which training and extraction, and those by which probes, ask for a GPU each, or for none.

    On a cluster `auto` asks for one: the machine that Snakemake runs on tells nothing of the nodes. Where none is asked for,
    none of a model is, whatever a profile's `default-resources` say. On this machine, probes ask for a place beside a
    training, so that trainings that wait for a GPU take no probe's turn.

    Parameters
    ----------
    device: "auto", "cpu" or "cuda".
    local: says, once jobs are planned, whether they run on this machine.
    beside: how many probes a GPU of this machine takes beside a training.
    """
    if device == "cpu":
        none = {"gpu": 0, "gpu_model": ""}
        return {**none}, {**none, "gpu_place": 0}

    def wanted(_wildcards: object) -> int:
        return int(device == "cuda" or not local() or local_gpus() > 0)

    def shared() -> bool:
        return beside > 0 and local()

    return {"gpu": wanted}, {
        "gpu": lambda wildcards: 0 if shared() else wanted(wildcards),
        "gpu_place": lambda wildcards: wanted(wildcards) if shared() else 0,
    }
