"""One run from nothing to the page, and what it leaves behind."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from project import Project

pytestmark = pytest.mark.xdist_group("finished")

RUNS = ("mlp8/true-labels", "wrn-10-1/true-labels", "mlp8/random-labels")


def results(project: Project) -> Path:
    return project.folder / "results" / "tiny"


def test_every_figure_exists_in_three_forms_with_its_numbers(finished: Project) -> None:
    for number in range(1, 8):
        stem = results(finished) / "figures" / f"figure{number}"
        assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(stem.with_suffix(".csv"))) > 0


def test_a_figure_without_its_runs_says_which_are_missing(finished: Project) -> None:
    facts = json.loads((results(finished) / "figures" / "figure7.json").read_text())
    assert facts["missing"]
    assert "digits" in facts["missing"][0] and "overfit" in facts["missing"][0]


def test_the_measures_have_every_row(finished: Project) -> None:
    table = pd.read_parquet(results(finished) / "measures" / "measures.parquet")
    models, splits = 4, 2
    steps = {"mlp8/true-labels": 4, "wrn-10-1/true-labels": 3, "mlp8/random-labels": 3}
    hidden = {"wrn-10-1/true-labels": 5}
    for run in RUNS:
        architecture, labels = run.split("/")
        rows = table[(table.architecture == architecture) & (table.labels == labels)]
        assert len(rows) == (steps[run] + hidden.get(run, 0)) * models * splits - hidden.get(run, 0) * splits, run
    fitted = table[table.model != "dnn"]
    assert fitted.d_kl.ge(0).all() and fitted.p_same.between(0, 1).all() and fitted.converged.all()
    assert (table[table.model == "svm"].accuracy == table[table.model == "svm"].accuracy_decision).all()


def test_random_labels_are_learned_by_nobody_on_the_test_set(finished: Project) -> None:
    table = pd.read_parquet(results(finished) / "measures" / "measures.parquet")
    final = table[(table.labels == "random-labels") & (table.split == "test") & (table.step == 20)]
    assert (final.accuracy < 0.25).all()
    final = table[
        (table.labels == "true-labels") & (table.split == "test") & (table.step == 30) & (table.model == "knn")
    ]
    assert (final.accuracy > 0.5).all()


def test_every_result_has_provenance_and_every_digest_fits(finished: Project) -> None:
    done = finished.python("workflow/scripts/results.py", "verify", "results/tiny")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ results checked, every digest fits, and the configuration$", done.stdout, re.MULTILINE)
    for path in results(finished).rglob("*.provenance.json"):
        record = json.loads(path.read_text())
        assert {"spec", "code", "git", "inputs", "results", "libraries", "threads", "wall_seconds"} <= record.keys()
        assert {"python", "device", "peak_memory_bytes", "digest"} <= record.keys()
        assert str(finished.folder) not in path.read_text()
        assert not re.search(r'"/\w', path.read_text()), "no path of this machine"


def test_verify_names_what_was_altered(finished: Project) -> None:
    altered = next(results(finished).rglob("logits/steps*/*_test.npy"))
    before = altered.read_bytes()
    try:
        altered.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        done = finished.python("workflow/scripts/results.py", "verify", "results/tiny")
        assert done.returncode == 1 and altered.name in done.stdout and "damaged" in done.stdout
    finally:
        altered.write_bytes(before)


def test_the_state_of_finished_jobs_is_cleared_away(finished: Project) -> None:
    left = [path for path in results(finished).rglob(".state/**/*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    assert not list(results(finished).rglob("*.part"))


def test_the_page_holds_everything_in_itself(finished: Project) -> None:
    page = (results(finished) / "report.html").read_text()
    assert len(re.findall(r'<img src="data:image/png', page)) == 9
    assert set(re.findall(r'(?:src|href)="((?!data:|#)[^"]*)', page)) == {"https://arxiv.org/abs/1805.06822"}
    assert len(re.findall(r"<img [^>]*alt=\"[^\"]{20,}\"", page)) == 9
    assert "<script" not in page


def test_the_page_is_in_order_for_eyes_and_screen_readers(finished: Project) -> None:
    page = (results(finished) / "report.html").read_text()
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) | set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    sections = ["verdicts", "runs", "figures", "training", "beside", "gaps", "provenance", "configuration"]
    assert [name for name in ids if name in sections] == sections
    figures = [name.removesuffix("-figure") for name in re.findall(r'<figure id="([\w-]+)">', page)]
    assert figures == ["claims", *(f"figure{number}" for number in range(1, 8)), "training"]
    for name, whole in zip(figures, re.findall(r"<figure.*?</figure>", page, re.DOTALL), strict=True):
        assert (
            f'download="{name}.csv"' in whole
            and f'download="{name}.pdf"' in whole
            and "<code>snakemake --cores all results/tiny/" in whole
        )
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(b - a for a, b in pairwise(levels)) <= 1
    assert page.count("<table") == page.count("<caption") and 'href="#main"' in page


def test_the_verdicts_are_printed_with_the_page(finished: Project) -> None:
    done = finished.python("workflow/scripts/results.py", "verdicts", "results/tiny")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:18:2]] == [str(number) for number in range(1, 10)]
    assert lines[-1].endswith((results(finished) / "report.html").resolve().as_uri())
    missing = finished.python("workflow/scripts/results.py", "verdicts", "results/none")
    assert missing.returncode != 0 and "Traceback" not in missing.stderr


def test_snakemakes_own_report_is_built(finished: Project) -> None:
    finished.snakemake("--report", "snakemake-report.html")
    assert (finished.folder / "snakemake-report.html").stat().st_size > 100_000


def test_every_stage_logs_to_its_own_file(finished: Project) -> None:
    logs = {path.parent.name for path in results(finished).glob("logs/*/*.log") if path.stat().st_size}
    assert logs >= {"prepare", "labels", "train", "features", "probes", "measures", "figures", "claims"}


def test_results_travel_without_weights_and_are_drawn_there(finished: Project, project: Project) -> None:
    packed = finished.python("workflow/scripts/results.py", "pack", "results/tiny", "tiny.tar.gz")
    assert packed.returncode == 0, packed.stderr
    archive = finished.folder / "tiny.tar.gz"
    done = project.python("workflow/scripts/results.py", "unpack", str(archive))
    assert done.returncode == 0, done.stderr
    assert not list(results(project).rglob("*.npy")) and not list(results(project).rglob("*.pt"))
    assert project.planned() == set()
    again = project.planned("--forcerun", "figure", "claims")
    assert {job[0] for job in again} == {"figure", "claims", "report"}
    (project.folder / "changed.yaml").write_text("probes: {lr: {kind: logistic, C: 0.5}}\n")
    changed = project.planned(overlays=("tiny.yaml", "changed.yaml"))
    assert {job for job in changed if job[0] == "probe" and "lr" in job}, (
        "what was left behind is still seen to be stale"
    )
    project.snakemake("results/tiny/figures/figure1.pdf", "--cores", "1", "--forcerun", "figure", "claims")
    made, original = ((results(p) / "figures" / "figure1.png").read_bytes() for p in (project, finished))
    assert made == original
    assert project.python("workflow/scripts/results.py", "verify", "results/tiny").returncode == 0


def test_an_archive_is_drawn_again_by_one_command_whatever_the_code_became(finished: Project, project: Project) -> None:
    assert finished.python("workflow/scripts/results.py", "pack", "results/tiny", "again.tar.gz").returncode == 0
    (project.folder / "tiny.yaml").unlink()  # the archive holds its configuration
    probe = project.folder / "workflow" / "scripts" / "dnn_or_knn" / "probes" / "knn.py"
    probe.write_text(probe.read_text() + "\nANOTHER = 1\n")
    done = project.python("workflow/scripts/results.py", "redraw", str(finished.folder / "again.tar.gz"))
    assert done.returncode == 0, done.stdout + done.stderr
    logs = {path.parent.name for path in (results(project) / "logs").rglob("*.log")}
    assert logs == {"figures", "claims"}, "nothing else ran"
    for name in ("figures/figure1.png", "figures/figure6.csv", "claims/claims.csv"):
        assert (results(project) / name).read_bytes() == (results(finished) / name).read_bytes(), name


def test_archives_of_some_runs_each_are_drawn_together(finished: Project, project: Project) -> None:
    parts = {"one.tar.gz": ["digits/mlp8"], "two.tar.gz": ["digits/wrn-10-1"]}
    for name, only in parts.items():
        done = finished.python("workflow/scripts/results.py", "pack", "results/tiny", name, "--only", *only)
        assert done.returncode == 0, done.stderr
    one, two = (str(finished.folder / name) for name in parts)
    done = project.python("workflow/scripts/results.py", "redraw", two)
    assert (
        done.returncode == 1
        and "holds no measures of digits/mlp8/true-labels/seed0 (and of 1 more runs)" in done.stderr
    )
    done = project.python("workflow/scripts/results.py", "redraw", one, two, "--cores", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    made, original = ({path.name for path in (results(p) / "claims").iterdir()} for p in (project, finished))
    assert made == original, "and nothing that the configuration does not ask for"
    for name in ("figures/figure1.png", "figures/figure6.csv", "claims/claims.csv", "measures/replicates.parquet"):
        assert (results(project) / name).read_bytes() == (results(finished) / name).read_bytes(), name
    assert project.python("workflow/scripts/results.py", "verify", "results/tiny").returncode == 0


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "workflow/scripts/train.py", "results/../x"])
def test_an_archive_that_reaches_outside_is_refused(project: Project, tmp_path: Path, name: str) -> None:
    import tarfile

    victim = tmp_path / "victim"
    victim.write_text("evil")
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        tar.add(victim, arcname=name)
    done = project.python("workflow/scripts/results.py", "unpack", str(tmp_path / "evil.tar.gz"))
    assert done.returncode == 1 and "no plain file below results/" in done.stderr
    assert not (project.folder / "results").exists()


@pytest.mark.slow
def test_the_size_of_a_shard_changes_no_bit(finished: Project, project: Project) -> None:
    (project.folder / "shards.yaml").write_text("shards: {evaluations: 1}\n")
    table = "results/tiny/measures/measures.parquet"
    project.snakemake("--cores", "2", table, overlays=("tiny.yaml", "shards.yaml"))
    folders = [checkout.folder / "results" / "tiny" for checkout in (project, finished)]
    for name in ("measures.parquet", "replicates.parquet"):
        one, two = ((folder / "measures" / name).read_bytes() for folder in folders)
        assert one == two, name
    # Which shard a fit lies in differs; its arrays do not.
    one, two = (
        {(*path.relative_to(folder).parts[:-2], path.name): path for path in folder.rglob("probes/*/*/*.npz")}
        for folder in folders
    )
    assert one and one.keys() == two.keys()
    assert [name for name in one if one[name].read_bytes() != two[name].read_bytes()] == []


#: One run and its k-NN alone, searched by three jobs.
PIECES = """
architectures: {wrn-10-1: null}
runs: [{architectures: [mlp8], datasets: [digits], labels: true-labels, steps: 4, evaluate_every: 4}]
probes: {svm: null, lr: null}
figures: {architecture: mlp8}
shards: {evaluations: 2, queries: 3}
"""


@pytest.mark.slow
def test_a_search_cut_into_jobs_changes_no_bit(project: Project) -> None:
    (project.folder / "pieces.yaml").write_text(PIECES)
    (project.folder / "whole.yaml").write_text("shards: {queries: 1}\n")
    cut, whole = ("tiny.yaml", "pieces.yaml"), ("tiny.yaml", "pieces.yaml", "whole.yaml")
    run = project.folder / "results/tiny/digits/mlp8/true-labels/seed0"
    target = str((run / "measures/measures.json").relative_to(project.folder))
    project.snakemake("--cores", "2", target, overlays=cut)
    made = {path.relative_to(run): path.read_bytes() for path in results_of(run)}
    assert {path.name for path in (run / "probes/knn").iterdir()} == {
        f"steps000000-000004{ending}" for ending in ("", ".json", ".provenance.json")
    }
    assert json.loads((run / "probes/knn/steps000000-000004.provenance.json").read_text())["pieces"] == 3
    # However the search would be cut now, nothing is stale; what is made anew is cut as it is configured.
    assert project.planned(target, overlays=cut) == set() and project.planned(target, overlays=whole) == set()
    search = project.folder / "workflow/scripts/dnn_or_knn/probes/query_shards.py"
    code = search.read_text()
    search.write_text(code + "\nX = 1\n")
    stale = {job[0] for job in project.planned(target, overlays=cut)}
    search.write_text(code)
    assert stale == {"query_shard", "probe", "measures"}, "the code that searched is another"
    for path in results_of(run):
        path.unlink()
    again = project.planned(target, overlays=cut)
    assert [job[0] for job in sorted(again)] == ["measures", "probe", "query_shard", "query_shard", "query_shard"]
    project.snakemake("--cores", "2", target, overlays=whole)
    assert json.loads((run / "probes/knn/steps000000-000004.provenance.json").read_text())["pieces"] == 1
    assert made == {path.relative_to(run): path.read_bytes() for path in results_of(run)}
    assert project.planned(target, overlays=cut) == set()


def results_of(run: Path) -> list[Path]:
    """Return a run's tables, neighbours and their manifests."""
    found = [path for folder in ("measures", "probes") for path in (run / folder).rglob("*") if path.is_file()]
    return [path for path in found if not path.name.endswith(".provenance.json")]


def test_on_two_gpus_three_jobs_are_started(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    output = project.snakemake("results/tiny/digits/store/store.json", "--cores", "1", "--printshellcmds")
    assert re.search(r"^Provided resources: .*gpu\D+3\b", output, re.MULTILINE), output
