"""The rerun matrix: change X, and exactly these jobs are stale."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from dnn_or_knn.plan import runs, specifications
from dnn_or_knn.plan.configuration import load_overlays
from project import Job, Project, manifests, same_results

pytestmark = pytest.mark.xdist_group("finished")

LIBRARY = "workflow/scripts/dnn_or_knn"
FIGURES = {("figure", str(number)) for number in range(1, 8)}
#: What is drawn from the experiment's table, whatever changes in it.
ENDS = FIGURES | {("collect",), ("claims",), ("published",), ("report",)}
STAGES = ("prepare", "labels", "train", "features", "probe", "measures")
Jobs = set[Job]
Change = Callable[[Project], AbstractContextManager[object]]


@contextmanager
def replaced(path: Path, text: str) -> Iterator[None]:
    """Give a file other text for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def edit(file: str, pattern: str, new: str) -> Change:
    """Return the change that replaces the first match of a pattern in a file."""

    def change(project: Project) -> AbstractContextManager[object]:
        path = project.folder / file
        text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE)
        assert count == 1, f"{file} has no {pattern}"
        return replaced(path, text)

    return change


def append(file: str, text: str) -> Change:
    """Return the change that adds text at the end of a file."""
    return lambda project: replaced(project.folder / file, (project.folder / file).read_text() + text)


def configure(change: Callable[[dict[str, Any]], object]) -> Change:
    """Return a change of the tiny configuration."""

    def apply(project: Project) -> AbstractContextManager[object]:
        config = yaml.safe_load((project.folder / "tiny.yaml").read_text())
        change(config)
        return replaced(project.folder / "tiny.yaml", yaml.safe_dump(config, sort_keys=False))

    return apply


def of_block(position: int, **values: object) -> Change:
    return configure(lambda config: config["runs"][position].update(values))


def key(path: str, value: object) -> Change:
    """Return the change of one key, named with dots, of the configuration."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            config = config.setdefault(name, {})
        config[last] = value

    return configure(change)


def reordered(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with all keys the other way round, but where their order is that of the figures."""
    shown = ("architectures", "datasets", "probes")
    turned = {name: turn(value) if name not in shown else value for name, value in reversed(config.items())}
    config.clear()
    return turned


def turn(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: turn(item) for name, item in reversed(value.items())}
    return [turn(item) for item in value] if isinstance(value, list) else value


def remove(file: str) -> Change:
    """Return the change that takes a file or folder of the results away for a while."""

    @contextmanager
    def change(project: Project) -> Iterator[None]:
        path = project.folder / "results" / "tiny" / file
        aside = project.folder / f"aside-{file.replace('/', '-')}"
        assert path.exists(), file
        path.rename(aside)
        try:
            yield
        finally:
            aside.rename(path)

    return lambda project: change(project)


def of(jobs: Jobs, *rules: str, has: str = "") -> Jobs:
    """Return the jobs of some rules, or those of them with one value among their wildcards."""
    return {job for job in jobs if job[0] in rules and (not has or has in job)}


def after(jobs: Jobs, stage: str, *having: str) -> Jobs:
    """Return a stage's jobs that have all these wildcard values, and what follows from them."""
    stages = STAGES[STAGES.index(stage) :]
    return {job for job in jobs if job[0] in stages and set(having) <= set(job)} | ENDS


CURVES = {("training_curves",)}
#: What the measures beside the paper's add at the end, however few jobs there are.
MORE = {("later_claims",), ("report",)}
MLP, WRN = "mlp8", "wrn-10-1"
#: name → (the change, the stale jobs out of all jobs of the changed workflow).
MATRIX: dict[str, tuple[Change, Callable[[Jobs], Jobs]]] = {
    # Nothing that determines a result.
    "nothing": (lambda project: nullcontext(), lambda jobs: set()),
    "a comment in the training": (append(f"{LIBRARY}/training/run.py", "\n# A remark.\n"), lambda jobs: set()),
    "how jobs run: files": (append(f"{LIBRARY}/runtime/files.py", "\nX = 1\n"), lambda jobs: set()),
    "how jobs run: a sentence": (
        edit(f"{LIBRARY}/runtime/command_line.py", "run again to resume", "run once more to resume"),
        lambda jobs: set(),
    ),
    "how jobs run: the digest of code": (
        append(f"{LIBRARY}/runtime/code_digest.py", "\nX = 1\n"),
        lambda jobs: set(),
    ),
    "a docstring of a probe": (edit(f"{LIBRARY}/probes/knn.py", r'\A"""', '"""Indeed: '), lambda jobs: set()),
    "formatting": (append("workflow/scripts/train.py", "\n\n\n"), lambda jobs: set()),
    "the registry": (append(f"{LIBRARY}/plan/registry.py", '\nDATASETS["svhn"] = {}\n'), lambda jobs: set()),
    "threads": (key("jobs.train_threads", 2), lambda jobs: set()),
    "the interval of saves": (key("jobs.save_every", 77), lambda jobs: set()),
    "the pieces of a search": (key("shards", {"evaluations": 2, "queries": 3}), lambda jobs: set()),
    "probabilities that go once measured": (key("keep.probabilities", "until-measured"), lambda jobs: set()),
    "the data folder": (key("data.root", "elsewhere"), lambda jobs: set()),
    "the order of keys": (configure(lambda c: c.update(reordered(c))), lambda jobs: set()),
    # Configuration.
    "k": (
        configure(lambda c: c.update(probes={"knn": {"kind": "knn", "k": 20}})),
        lambda jobs: of(jobs, "measures") | ENDS,
    ),
    "C of the logistic regression": (
        configure(lambda c: c.update(probes={"lr": {"kind": "logistic", "C": 0.5}})),
        lambda jobs: of(jobs, "probe", has="lr") | of(jobs, "measures") | ENDS,
    ),
    "the metric of the k-NN": (
        configure(lambda c: c.update(probes={"knn": {"kind": "knn", "metric": "l1"}})),
        lambda jobs: of(jobs, "probe", has="knn") | of(jobs, "measures") | ENDS,
    ),
    "bootstrap replicates": (key("measures.replicates", 21), lambda jobs: of(jobs, "measures") | ENDS),
    "one learning rate": (
        of_block(1, training={"learning_rate": 0.05}),
        lambda jobs: after(jobs, "train", WRN) | CURVES,
    ),
    "the batch size": (key("training.batch_size", 40), lambda jobs: after(jobs, "train") | CURVES),
    "one run's steps": (of_block(2, steps=25), lambda jobs: after(jobs, "train", "random-labels") | CURVES),
    "the evaluation interval": (of_block(1, evaluate_every=2), lambda jobs: after(jobs, "train", WRN) | CURVES),
    "an option of one network": (
        key(f"architectures.{WRN}", {"shortcut": "pool"}),
        lambda jobs: after(jobs, "train", WRN) | CURVES,
    ),
    "the features of the input layer": (
        key("layer_input", "mean"),
        lambda jobs: after(jobs, "features"),
    ),
    "the batch of the extraction": (key("jobs.evaluation_batch", 500), lambda jobs: after(jobs, "features")),
    "an extraction that is not compiled": (key("jobs.evaluation_compile", False), lambda jobs: after(jobs, "features")),
    "the look of the figures": (key("figures.style", {"dpi": 100}), lambda jobs: FIGURES | CURVES | {("report",)}),
    "an option of the data set": (key("datasets.digits", {"split_seed": 1}), lambda jobs: jobs),
    "one run's seed": (of_block(2, seeds=[1]), lambda jobs: {j for j in jobs if "1" in j} | ENDS | CURVES),
    "the labels of one run": (
        of_block(2, subset={"draw": "first", "count": 500}),
        lambda jobs: {job for job in jobs if "random-labels" in job} | ENDS | CURVES,
    ),
    "a threshold of the claims": (key("claims.alike", 0.7), lambda jobs: {("claims",), ("report",)}),
    "a default that is used": (
        edit("workflow/schemas/config.schema.yaml", r"(λ·w is added to the gradient.\n +default:) 0.0", r"\1 0.001"),
        lambda jobs: after(jobs, "train") | CURVES,
    ),
    "a network's default": (
        edit(f"{LIBRARY}/plan/registry.py", r'(new batch in running statistics.",) 0.1', r"\1 0.2"),
        lambda jobs: after(jobs, "train", WRN) | CURVES,
    ),
    "a default that the configuration overrides": (
        edit("workflow/schemas/config.schema.yaml", r"(Bootstrap replicates .*\n +default:) 200", r"\1 100"),
        lambda jobs: set(),
    ),
    "the order of the networks, since it is their depth that orders them": (
        configure(lambda c: c.update(architectures=dict(reversed(c["architectures"].items())))),
        lambda jobs: set(),
    ),
    # Extending.
    "a new data set": (
        configure(
            lambda c: (
                c["data"].update(download=True),
                c["datasets"].update(mnist={}),
                c["runs"].append({**c["runs"][0], "datasets": ["mnist"]}),
            )
        ),
        lambda jobs: {job for job in jobs if "mnist" in job} | ENDS | CURVES,
    ),
    "one more k": (
        configure(lambda c: c.update(probes={"knn": {"kind": "knn", "k_sweep": [5]}})),
        lambda jobs: of(jobs, "measures") | ENDS,
    ),
    "a new seed": (
        key("seeds", [0, 1]),
        lambda jobs: {job for job in jobs if "1" in job and job[0] in STAGES} | ENDS | CURVES,
    ),
    "a new run": (
        configure(lambda c: c["runs"].append({**c["runs"][2], "architectures": [WRN]})),
        lambda jobs: {job for job in jobs if {WRN, "random-labels"} <= set(job)} | ENDS | CURVES,
    ),
    "a new probe": (
        configure(lambda c: c.update(probes={"cosine": {"kind": "knn", "metric": "cosine"}})),
        lambda jobs: of(jobs, "probe", has="cosine") | of(jobs, "measures") | ENDS,
    ),
    "the measures beside the paper's": (
        key("measures", {"replicates": 20, "examples": True, "geometry": True}),
        lambda jobs: of(jobs, "measure_outputs", "measure_features", "measure_table", "beside_figure") | MORE,
    ),
    "every layer of one more network": (
        of_block(0, layers="all"),
        lambda jobs: (
            of(jobs, "features", "probe", has="layers000030")
            | {job for job in of(jobs, "measures", has=MLP) if "true-labels" in job}
            | ENDS
        ),
    ),
    # Code.
    "the training's code": (
        append(f"{LIBRARY}/training/run.py", "\nX = 1\n"),
        lambda jobs: after(jobs, "train") | CURVES,
    ),
    "one network's code": (
        append(f"{LIBRARY}/networks/mlp.py", "\nX = 1\n"),
        lambda jobs: after(jobs, "train", MLP) | CURVES,
    ),
    "one probe's code": (
        append(f"{LIBRARY}/probes/svm.py", "\nX = 1\n"),
        lambda jobs: of(jobs, "probe", has="svm") | of(jobs, "measures") | ENDS,
    ),
    "one figure's code": (
        append(f"{LIBRARY}/figures/figure5.py", "\nX = 1\n"),
        lambda jobs: {("figure", "5"), ("report",)},
    ),
    "the arithmetic of jobs": (
        append(f"{LIBRARY}/numerics.py", "\nX = 1\n"),
        lambda jobs: after(jobs, "train") | CURVES,
    ),
    "the measures' code": (
        append(f"{LIBRARY}/measures/formulas.py", "\nX = 1\n"),
        lambda jobs: of(jobs, "measures") | ENDS,
    ),
    "the claims' code": (
        append(f"{LIBRARY}/claims/paper_claims.py", "\nX = 1\n"),
        lambda jobs: {("claims",), ("report",)},
    ),
    "the report's code": (append("workflow/scripts/report.py", "\nX = 1\n"), lambda jobs: {("report",)}),
    "what all networks share": (
        append(f"{LIBRARY}/networks/parts.py", "\nX = 1\n"),
        lambda jobs: after(jobs, "train") | CURVES,
    ),
    "the package around everything": (append(f"{LIBRARY}/__init__.py", "\nX = 1\n"), lambda jobs: jobs),
    "the extraction's code": (
        append(f"{LIBRARY}/features/extraction.py", "\nX = 1\n"),
        lambda jobs: after(jobs, "features"),
    ),
    "the caption of one figure": (
        edit(f"{LIBRARY}/figures/figure5.py", "trained on true labels", "trained on its true labels"),
        lambda jobs: {("figure", "5"), ("report",)},
    ),
    "the caption of a figure in Snakemake's own report": (
        append("workflow/report/captions/figure.rst", "More.\n"),
        lambda jobs: set(),
    ),
    "a published number": (
        edit("workflow/resources/published.yaml", "code: 99.31", "code: 99.32"),
        lambda jobs: {("published",), ("report",)},
    ),
    "a remark among the published numbers": (
        append("workflow/resources/published.yaml", "# More.\n"),
        lambda jobs: set(),
    ),
    # Results that go missing or change.
    "the data store's content": (
        append("results/tiny/digits/store/store.json", " "),
        lambda jobs: (
            jobs - of(jobs, "prepare", "collect", "training_curves", "figure", "claims", "published", "report")
            | ENDS
            | CURVES
        ),
    ),
    "a deleted probe": (
        remove(f"digits/{MLP}/random-labels/seed0/probes/svm/steps000000-000010.json"),
        lambda jobs: set(),
    ),
    "a table's content": (
        append(f"results/tiny/digits/{MLP}/random-labels/seed0/measures/measures.json", " "),
        lambda jobs: ENDS,
    ),
    "a deleted figure": (remove("figures/figure3.pdf"), lambda jobs: {("figure", "3"), ("report",)}),
    "a deleted run's table, already read": (
        remove(f"digits/{MLP}/random-labels/seed0/measures/measures.parquet"),
        lambda jobs: set(),
    ),
    "weights deleted": (
        remove(f"digits/{WRN}/true-labels/seed0/checkpoints"),
        lambda jobs: set(),
    ),
}


#: The changes that make nothing stale: made all at once, and one by one only where something is.
HARMLESS = [name for name, (_, expected) in MATRIX.items() if not expected({("any",)})]


@pytest.mark.parametrize("name", [name for name in MATRIX if name not in HARMLESS])
def test_a_change_makes_exactly_these_jobs_stale(finished: Project, name: str) -> None:
    change, expected = MATRIX[name]
    with change(finished):
        assert finished.planned() == expected(all_jobs(finished))


def test_changes_of_nothing_that_determines_a_result_make_nothing_stale(finished: Project) -> None:
    assert len(HARMLESS) >= 18
    with ExitStack() as stack:
        for name in HARMLESS:
            stack.enter_context(MATRIX[name][0](finished))
        stale = finished.planned()
    for name in HARMLESS if stale else []:
        with MATRIX[name][0](finished):
            assert finished.planned() == set(), name
    assert stale == set()


def all_jobs(project: Project) -> Jobs:
    """Return all jobs of the workflow as it is configured now; that Snakemake plans just these is a test of its own."""
    return {(task.rule, *task.wildcards.values()) for task in tasks(project)}


def tasks(project: Project) -> list[specifications.Task]:
    """Return the tasks that the workflow's configuration spells out."""
    return specifications.Jobs(runs.create(load_overlays(project.folder / "tiny.yaml"))).tasks


def test_the_matrix_is_large_enough() -> None:
    assert len(MATRIX) >= 54


#: Where features are released once probed, which is the default.
GONE = ("features/steps000000-000004", "features/steps000008-000008", "features/layers000008")


@pytest.mark.parametrize(
    "name", ["C of the logistic regression", "a new probe", "the measures beside the paper's", "nothing"]
)
def test_features_that_were_released_make_nothing_stale(finished: Project, name: str) -> None:
    """A changed or new probe extracts again what it misses, by itself: no other probe runs, and no extraction."""
    change, expected = MATRIX[name]
    with ExitStack() as stack:
        for folder in GONE:
            stack.enter_context(remove(f"digits/{WRN}/true-labels/seed0/{folder}")(finished))
        stack.enter_context(change(finished))
        assert finished.planned() == expected(all_jobs(finished))


def test_a_probe_extracts_again_what_was_released(finished: Project, tmp_path: Path) -> None:
    copy = copied(finished, tmp_path / "copy")
    run = copy.folder / "results" / "tiny" / "digits" / WRN / "true-labels" / "seed0"
    for folder in (*GONE, "probes/lr"):
        shutil.rmtree(run / folder)
    before = manifests(run)
    targets = [f"results/tiny/digits/{WRN}/true-labels/seed0/probes/lr/{Path(folder).name}.json" for folder in GONE]
    assert copy.planned(*targets) == {("probe", "digits", WRN, "true-labels", "0", "lr", Path(f).name) for f in GONE}
    copy.snakemake("--cores", "2", *targets)
    same_results(copy, finished)
    assert manifests(run).keys() > before.keys()
    for folder in GONE:
        made = json.loads((run / "probes" / "lr" / f"{Path(folder).name}.provenance.json").read_text())
        assert made["features_extracted_again"]
        assert not (run / folder).exists()
    assert not any(path.name.endswith("-features") for path in run.rglob(".state/*"))


def test_probes_that_miss_the_same_features_extract_them_once(finished: Project, tmp_path: Path) -> None:
    copy = copied(finished, tmp_path / "copy")
    run = copy.folder / "results" / "tiny" / "digits" / WRN / "true-labels" / "seed0"
    for folder in (*GONE, "probes/lr", "probes/svm"):
        shutil.rmtree(run / folder)
    shard = Path(GONE[0]).name
    targets = [f"results/tiny/digits/{WRN}/true-labels/seed0/probes/{probe}/{shard}.json" for probe in ("lr", "svm")]
    (copy.folder / "released.yaml").write_text("keep: {features: until-probed}\n")
    copy.snakemake("--cores", "1", *targets, overlays=("tiny.yaml", "released.yaml"))
    same_results(copy, finished, part=True)
    records = [json.loads((copy.folder / t).with_suffix(".provenance.json").read_text()) for t in targets]
    assert sorted(record["features_extracted_again"] for record in records) == [False, True]
    # Those of the other shard wait for the probes that were not asked for; these are gone.
    assert not (run / GONE[0]).exists() and len(list(run.rglob(".*.unprobed"))) == len(GONE) - 1


@pytest.mark.slow
def test_features_go_with_the_last_probe_that_reads_them(finished: Project, project: Project) -> None:
    (project.folder / "released.yaml").write_text("keep: {features: until-probed}\n")
    run = project.folder / "results" / "tiny" / "digits" / MLP / "random-labels" / "seed0"
    shard = "steps000020-000020"
    for probe, there in (("knn", True), ("svm", True), ("lr", False)):
        target = f"results/tiny/digits/{MLP}/random-labels/seed0/probes/{probe}/{shard}.json"
        project.snakemake("--cores", "1", target, overlays=("tiny.yaml", "released.yaml"))
        assert (run / "features" / shard).is_dir() == there
    assert not list(run.rglob(".*.unprobed"))
    same_results(project, finished, part=True)


def test_measures_switched_on_afterwards_extract_again_what_was_released(finished: Project, tmp_path: Path) -> None:
    copy = copied(finished, tmp_path / "copy")
    run = copy.folder / "results" / "tiny" / "digits" / WRN / "true-labels" / "seed0"
    for folder in GONE:
        shutil.rmtree(run / folder)
    with MATRIX["the measures beside the paper's"][0](copy):
        tables = [f"results/tiny/measures/{name}.json" for name in ("examples", "geometry")]
        rules = {job[0] for job in copy.planned(*tables)}
        assert rules == {"measure_outputs", "measure_features", "measure_table"}
        copy.snakemake("--cores", "2", *tables)
        assert copy.planned(*tables) == set()
    found = manifests(copy.folder / "results/tiny")
    assert {name: found[name] for name in manifests(finished.folder / "results/tiny")} == manifests(
        finished.folder / "results/tiny"
    )
    for folder in GONE:
        made = json.loads((run / "measures/geometry" / f"{Path(folder).name}.provenance.json").read_text())
        assert made["features_extracted_again"] and not (run / folder).exists()
    examples, geometry = (pd.read_parquet(copy.folder / table.replace(".json", ".parquet")) for table in tables)
    assert len(examples) == 3 * 1797 and set(examples.layers) == {1, 6}
    wrn = geometry[geometry.architecture == WRN]
    assert list(wrn.step) == [0, 4, 8, *[8] * 5] and [len(row) for row in wrn.cka] == [1, 1, 1, *[6] * 5]
    assert (wrn.intrinsic_dimension > 0).all() and (wrn.nc1 > 0).all()
    assert wrn.nc3.notna().tolist() == [True] * 3 + [False] * 5


def copied(finished: Project, folder: Path) -> Project:
    """Return a copy of a checkout with its results, at another place."""
    shutil.copytree(finished.folder, folder, symlinks=True)
    copy = object.__new__(Project)
    copy.folder = folder
    return copy


def test_touching_everything_is_nothing_to_do(finished: Project) -> None:
    for path in sorted(finished.folder.rglob("*")):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    assert finished.planned() == set()


def test_moving_the_checkout_is_nothing_to_do(finished: Project, tmp_path: Path) -> None:
    assert copied(finished, tmp_path / "elsewhere").planned() == set()


def test_checking_out_another_branch_and_back_is_nothing_to_do(finished: Project) -> None:
    scripts = finished.folder / "workflow"
    shutil.copytree(scripts, finished.folder / "branch")
    shutil.rmtree(scripts)
    shutil.copytree(finished.folder / "branch", scripts, copy_function=shutil.copyfile)
    shutil.rmtree(finished.folder / "branch")
    assert finished.planned() == set()


def why(project: Project, *arguments: str) -> dict[Job, str]:
    """Return what `results.py why` says of each job: (rule, values of its wildcards …) → its reasons."""
    said = project.python("workflow/scripts/results.py", "why", "--configfile", "tiny.yaml", *arguments)
    assert said.returncode == 0, said.stdout + said.stderr
    found: dict[Job, str] = {}
    job: Job = ()
    for line in said.stdout.splitlines()[:-1]:
        if line.startswith("    "):
            found[job] += line + "\n"
        else:
            rule, *wildcards = line.split()
            job = (rule, *(part.split("=", 1)[1] for part in wildcards))
            found[job] = ""
    count = f"{len(found)} jobs to run" if found else "Nothing to be done: every result is up to date."
    assert said.stdout.splitlines()[-1].split(";")[0] == count
    return found


RANDOM = ("digits", MLP, "random-labels", "0")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "one learning rate",
            {("train", "digits", WRN, "true-labels", "0"): "value training.learning_rate: 0.1 -> 0.05"},
        ),
        ("one probe's code", {("probe", *RANDOM, "svm", "steps000000-000010"): "code dnn_or_knn/probes/svm.py"}),
        ("what all networks share", {("train", *RANDOM): "code dnn_or_knn/networks/parts.py"}),
        ("k", {("measures", *RANDOM): "value probes.knn.k: 30 -> 20"}),
        (
            "a new probe",
            {
                ("measures", *RANDOM): "value probes.cosine: None -> {",
                ("probe", *RANDOM, "cosine", "steps000000-000010"): "Missing output files: ",
            },
        ),
        ("a deleted figure", {("figure", "3"): "Missing output files: results/tiny/figures/figure3.pdf"}),
        (
            "the data store's content",
            {
                ("labels", "digits", "true-labels", "0"): "input ../../../store/store.json: another content",
                ("collect",): "Input files updated by another job: ",
            },
        ),
        ("nothing", {}),
    ],
)
def test_why_lists_every_stale_job_with_its_reason(finished: Project, name: str, wanted: dict[Job, str]) -> None:
    with MATRIX[name][0](finished):
        reasons = why(finished)
        assert set(reasons) == finished.planned()
    assert all(reasons.values()), reasons
    for job, sentence in wanted.items():
        assert sentence in reasons[job]


def test_why_takes_what_snakemake_takes(finished: Project) -> None:
    given = ("--config", "seeds=[0, 1]", "--")
    target = "results/tiny/digits/mlp8/random-labels/seed1/training.json"
    assert {job[0] for job in why(finished, *given, target)} == {"labels", "train"}
    done = finished.python("workflow/scripts/results.py", "why", "--configfile", "tiny.yaml", "--config", "sedes=[1]")
    assert done.returncode == 1 and "did you mean 'seeds'" in done.stderr and "Traceback" not in done.stderr


REPORT = ("report",)


def of_one_date(project: Project) -> Project:
    """Date all results alike: other tests touch those of `finished`, and without records dates count."""
    for path in (project.folder / "results").rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    return project


def forgotten(finished: Project, folder: Path) -> Project:
    copy = of_one_date(copied(finished, folder))
    shutil.rmtree(copy.folder / ".snakemake")
    return copy


def cleaned(finished: Project, folder: Path) -> Project:
    copy = of_one_date(copied(finished, folder))
    files = [
        str(path.relative_to(folder)) for path in (folder / "results/tiny").rglob("*") if "features" not in path.parts
    ]
    known = [name for name in files if "logs" not in name and not re.search(r"/(logits|probes/\w+)/\w+-?\w+/", name)]
    copy.snakemake("--cleanup-metadata", *known, check=False)
    return copy


def sent(finished: Project, folder: Path) -> Project:
    project = Project(folder)
    shutil.copytree(finished.folder / "results", folder / "results", symlinks=True)
    return of_one_date(project)


def renamed(finished: Project, folder: Path) -> Project:
    copy = copied(finished, folder)
    shutil.copytree(copy.folder / "results/tiny", copy.folder / "results/again", symlinks=True)
    path = copy.folder / "tiny.yaml"
    path.write_text(path.read_text().replace("experiment: tiny", "experiment: again"))
    return of_one_date(copy)


#: How results come to lie there without Snakemake's records of them → what is stale then.
WITHOUT_RECORDS: dict[str, tuple[Callable[[Project, Path], Project], Jobs]] = {
    "rm -rf .snakemake": (forgotten, set()),
    "rsync -a to another checkout": (sent, set()),
    "cp -a results/tiny results/again": (renamed, {REPORT}),
    "--cleanup-metadata": (cleaned, set()),
}


@pytest.mark.parametrize("how", WITHOUT_RECORDS)
def test_results_without_records_are_held_against_the_configuration(
    finished: Project, tmp_path: Path, how: str
) -> None:
    make, anyway = WITHOUT_RECORDS[how]
    copy = make(finished, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (copy.folder / "results").rglob("*")}
    assert copy.planned() == anyway
    for name in ("one learning rate", "one probe's code"):
        change, expected = MATRIX[name]
        with change(copy):
            assert copy.planned() == expected(all_jobs(copy)), name
    change, expected = MATRIX["one learning rate"]
    with change(copy), key("seeds", [0, 1])(copy):
        stale = copy.planned()
        assert {("train", "digits", WRN, "true-labels", seed) for seed in "01"} <= stale
        assert not [job for job in stale if job[0] == "train" and job[2] == MLP and job[4] == "0"]
        reason = why(copy)["train", "digits", WRN, "true-labels", "0"]
        assert reason == "    value training.learning_rate: 0.1 -> 0.05\n"
        results = next(path for path in (copy.folder / "results").iterdir() if path.name != "tiny" or not anyway)
        said = copy.python(
            "workflow/scripts/results.py", "verify", str(results.relative_to(copy.folder)), "--configfile", "tiny.yaml"
        )
        assert said.returncode == 1
        assert f"{WRN}/true-labels/seed0/training.json was made with another configuration" in said.stdout
        assert "training.learning_rate: 0.1 -> 0.05" in said.stdout and "are not made yet" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in (copy.folder / "results").rglob("*")} == before


def test_stale_results_without_records_are_made_anew_once_and_only_what_is_asked_for(
    finished: Project, tmp_path: Path
) -> None:
    copy = forgotten(finished, tmp_path / "copy")
    target = f"results/tiny/digits/{MLP}/random-labels/seed0/training.json"
    job = ("train", "digits", MLP, "random-labels", "0")
    with key("training.batch_size", 40)(copy):
        assert copy.planned(target) == {job}
        assert "stay as they are" in copy.snakemake(
            "--dry-run", target, "--rerun-triggers", "mtime", "--quiet", "rules"
        )
        copy.snakemake("--cores", "1", target)
        assert copy.planned(target) == set()
        said = copy.python("workflow/scripts/results.py", "verify", "results/tiny")
        assert said.returncode == 1 and "training.batch_size: 50 -> 40" in said.stdout, "two learned otherwise than one"
    # What was made anew is stale in the former configuration, whatever Snakemake recorded.
    shutil.rmtree(copy.folder / ".snakemake")
    assert job in copy.planned(target)


def test_inputs_of_another_content_count_without_records(finished: Project, tmp_path: Path) -> None:
    copy = forgotten(finished, tmp_path / "copy")
    path = copy.folder / f"results/tiny/digits/{MLP}/random-labels/seed0/measures/measures.json"
    date = path.stat().st_mtime_ns
    path.write_text(path.read_text() + " ")
    os.utime(path, ns=(date, date))
    assert copy.planned() == ENDS
    path.with_name("measures.provenance.json").unlink()
    assert ("measures", "digits", MLP, "random-labels", "0") in copy.planned()


def test_every_job_is_spelled_out_where_its_rule_makes_it(finished: Project) -> None:
    with (
        MATRIX["a new seed"][0](finished),
        MATRIX["the measures beside the paper's"][0](finished),
        key("choices", {"c": {"probes": {"lr": {"C": 0.5}}}})(finished),
    ):
        spelled_out = tasks(finished)
        assert all_jobs(finished) == finished.planned("--forceall")
        output = finished.snakemake("--dry-run", "--printshellcmds", "--forceall")
    made = set(
        re.findall(r"results/tiny/([^, \n]+)\.provenance\.json", "".join(re.findall("^    output: .*\n", output, re.M)))
    )
    assert made == {task.manifest for task in spelled_out} and len(made) == len(spelled_out)


def test_features_that_nobody_will_read_go_at_the_start(finished: Project, tmp_path: Path) -> None:
    """A probe was dropped, or its job was killed after its last word: its mark would hold the features for ever."""
    copy = copied(finished, tmp_path / "copy")
    (copy.folder / "released.yaml").write_text("keep: {features: until-probed}\n")
    run = copy.folder / "results/tiny/digits" / MLP / "random-labels/seed0"
    nobody, somebody = "steps000000-000010", "steps000020-000020"
    for shard, probe in ((nobody, "dropped"), (nobody, "knn"), (somebody, "dropped"), (somebody, "svm")):
        (run / "features" / f".{shard}.unprobed").mkdir(parents=True, exist_ok=True)
        (run / "features" / f".{shard}.unprobed" / probe).touch()
    (run / "probes/svm" / f"{somebody}.json").unlink()
    (copy.folder / "results/tiny/figures/figure5.json").unlink()
    figure, overlays = "results/tiny/figures/figure5.json", ("tiny.yaml", "released.yaml")
    copy.snakemake("--dry-run", figure, overlays=overlays)
    assert (run / "features" / nobody).is_dir()
    output = copy.snakemake("--cores", "1", figure, overlays=overlays)
    assert f"features/{nobody} is released: no probe" in output
    assert not (run / "features" / nobody).exists() and (run / "features" / somebody).is_dir()
    assert [path.name for path in run.rglob(".*.unprobed/*")] == ["svm"]
    # Features that were asked for alone wait for their probes; a person may release them.
    words = ("workflow/scripts/results.py", "disk", "--configfile", *overlays)
    said = copy.python(*words).stdout
    assert "Features of 6 shards lie on disk now" in said and f"{' '.join(words)} --release" in said
    assert "Features of 0 shards lie on disk now" in copy.python(*words, "--release").stdout
    assert not (run / "features" / somebody).exists() and not list(run.rglob(".*.unprobed"))
    assert (
        "keep.features: all"
        in copy.python("workflow/scripts/results.py", "disk", "--configfile", "tiny.yaml", "--release").stderr
    )


def test_probabilities_go_with_the_last_measure_and_are_made_again_for_the_next(
    finished: Project, tmp_path: Path
) -> None:
    copy = copied(finished, tmp_path / "copy")
    (copy.folder / "passing.yaml").write_text("keep: {probabilities: until-measured}\n")
    (copy.folder / "replicates.yaml").write_text("measures: {replicates: 21}\n")
    overlays = ("tiny.yaml", "passing.yaml")
    run = copy.folder / "results/tiny/digits" / MLP / "random-labels/seed0"
    shards = ("steps000000-000010", "steps000020-000020")
    passing = [run / "probes" / probe / shard for probe in ("lr", "svm") for shard in shards]
    tool = "workflow/scripts/results.py"
    verify = (tool, "verify", "results/tiny", "--configfile", *overlays)
    assert copy.planned(overlays=overlays) == set(), "what keeps them is no part of any result"
    of_shards = {job for job in copy.planned("--forceall", overlays=overlays) if "probe" in job[0]}
    assert {(job[0], job[5]) for job in of_shards} == {
        ("probe", "knn"),
        ("passing_probe", "svm"),
        ("passing_probe", "lr"),
    }
    assert {job[1:] for job in of_shards} == {job[1:] for job in all_jobs(copy) if job[0] == "probe"}

    # What is measured already goes at the start of a run that has something to do, or when a person says so.
    words = (tool, "disk", "--configfile", *overlays)
    assert "Probabilities of 14 shards lie on disk now and are measured" in copy.python(*words).stdout
    (copy.folder / "results/tiny/figures/figure5.json").unlink()
    said = copy.snakemake("--cores", "1", "results/tiny/figures/figure5.json", overlays=overlays)
    assert f"probes/lr/{shards[0]} is released: every measure" in said
    assert not any(folder.exists() for folder in passing) and (run / "probes/knn" / shards[0]).is_dir()
    shutil.copytree(finished.folder / passing[0].relative_to(copy.folder), passing[0])
    assert "Probabilities of 1 shards lie" in copy.python(*words).stdout
    assert "are measured" not in copy.python(*words, "--release").stdout and not passing[0].exists()
    assert (run / "features" / shards[0]).is_dir(), "the configuration keeps features"
    shutil.rmtree(run / "features" / shards[0])
    done = copy.python(*verify)
    assert done.returncode == 0 and re.search(r"released, and so not checked: .*14 folders of probes", done.stdout)
    assert copy.planned(overlays=overlays) == set()

    # Where they are kept, they are missed.
    neighbours, aside = run / "probes/knn" / shards[0], copy.folder / "aside"
    neighbours.rename(aside)
    done = copy.python(*verify)
    assert done.returncode == 1 and done.stdout.startswith(f"{neighbours.relative_to(copy.folder)} is missing, and")
    aside.rename(neighbours)
    assert copy.python(tool, "pack", "results/tiny", "packed.tar.gz").returncode == 0

    # What reads neighbours alone finds them.
    more = copy.planned("--config", "measures={geometry: true, replicates: 20}", overlays=overlays)
    assert {job[0] for job in more} == {"measure_features", "measure_table", "beside_figure", "report"}, more

    # A stale measure has them made again, from features that are extracted again, bit for bit, and nothing else.
    target, overlays = (
        f"results/tiny/digits/{MLP}/random-labels/seed0/measures/measures.json",
        (*overlays, "replicates.yaml"),
    )
    again = {("passing_probe", *RANDOM, folder.parent.name, folder.name) for folder in passing}
    assert copy.planned(target, overlays=overlays) == {*again, ("measures", *RANDOM)}
    said = copy.python(tool, "why", "--configfile", *overlays, "--", target).stdout
    assert said.count("its probabilities were released, and are to be read again") == 4, said
    assert "value bootstrap.replicates: 20 -> 21" in said and "Missing output files" not in said
    before = manifests(run)
    copy.snakemake("--cores", "2", target, overlays=overlays)
    after = manifests(run)
    assert {name for name in before if before[name] != after[name]} == {"measures/measures.json"}
    assert not any(folder.exists() for folder in passing) and neighbours.is_dir()
    records = [json.loads(folder.with_name(f"{folder.name}.provenance.json").read_text()) for folder in passing]
    assert [record["features_extracted_again"] for record in records] == [True, False] * 2
    assert copy.planned(target, overlays=overlays) == set()


@pytest.mark.slow
def test_a_specification_longer_than_a_command_may_be(project: Project) -> None:
    block = "{architectures: [mlp8], datasets: [digits], labels: true-labels, steps: 24000, evaluate_every: 1}"
    (project.folder / "long.yaml").write_text(f"runs: [{block}]\nkeep: {{weights_every: 24000}}\n")
    target = f"results/tiny/digits/{MLP}/true-labels/seed0/training.json"
    project.snakemake("--cores", "1", target, overlays=("tiny.yaml", "long.yaml"))
    record = json.loads((project.folder / target).with_suffix(".provenance.json").read_text())
    assert len(record["spec"]["accuracy_at"]) == 23_999
    assert project.planned(target, overlays=("tiny.yaml", "long.yaml")) == set()
    assert len(list((project.folder / "results/tiny/.specs").iterdir())) == 1
