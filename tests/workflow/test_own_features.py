"""Features alone through the whole workflow: those of a network that was trained here give its measures, bit for bit."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docs")]
SPLITS = ("train", "test")


def as_files(run: Path, folder: Path) -> dict[int, dict[str, str]]:
    """Write a run's features and logits as a user would have them, and return them by step and layer."""
    files: dict[int, dict[str, str]] = {}
    folder.mkdir()
    for shard in sorted(
        (run / "features").glob("*[0-9].json"), reverse=True
    ):  # hidden layers stand before the embedding
        facts = json.loads(shard.read_text())
        for step in facts["steps"]:
            for layer in (entry["name"] for entry in facts["layers"]):
                names = {f"{s}_features": shard.with_suffix("") / f"step{step:06d}_{layer}_{s}.npy" for s in SPLITS}
                if layer == "embedding":
                    logits = run / "logits" / shard.stem
                    names |= {f"{s}_logits": logits / f"step{step:06d}_{s}.npy" for s in SPLITS}
                path = folder / f"{step}-{layer}.npz"
                np.savez(path, **{name: np.load(file) for name, file in names.items()})
                files.setdefault(step, {})[layer] = f"{folder.name}/{path.name}"
    return files


def test_dumped_features_give_the_measures_of_their_network(finished: Project, project: Project) -> None:
    """The same numbers for the data set under its own name, and, without logits and images, the same accuracies."""
    run = finished.folder / "results/tiny/digits/wrn-10-1/true-labels/seed0"
    files = as_files(run, project.folder / "dumped")
    alone = project.folder / "alone"
    alone.mkdir()
    store = finished.folder / "results/tiny/digits/store"
    for split in SPLITS:
        with np.load(project.folder / files[8]["embedding"]) as arrays:
            np.save(alone / f"{split}_features.npy", arrays[f"{split}_features"])
        np.save(alone / f"{split}_labels.npy", np.load(store / f"{split}_labels.npy"))
    overlay = {
        "experiment": "given",
        "architectures": {"mlp8": None, "wrn-10-1": None},
        "runs": [],
        "subjects": {
            "dumped": {"features": files, "dataset": "digits", "title": "Dumped"},
            "alone": {"features": {8: "alone"}},
        },
        "figures": {"architecture": "dumped"},
    }
    (project.folder / "given.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False))
    overlays = ("tiny.yaml", "given.yaml")
    project.snakemake("--cores", "2", overlays=overlays)
    results = project.folder / "results/given"
    one = pd.read_parquet(run / "measures/measures.parquet").drop(columns="architecture")
    dumped = results / "digits/dumped/true-labels/seed0/measures/measures.parquet"
    pd.testing.assert_frame_equal(one, pd.read_parquet(dumped).drop(columns="architecture"))
    other = pd.read_parquet(results / "alone/alone/true-labels/seed0/measures/measures.parquet")
    last = one[(one.step == 8) & (one.layer == "embedding") & (one.model != "dnn")].reset_index(drop=True)
    assert other[["p_same", "d_kl", "d_kl_column"]].isna().all().all()
    pd.testing.assert_series_equal(last.accuracy, other.accuracy)
    assert not list(results.rglob("*.pt")) and "Dumped" in (results / "report.html").read_text()
    claims = (results / "claims/claims.md").read_text()
    assert "alone/alone/true-labels seed 0 has features without logits, and no network's answers" in claims
    assert project.planned(overlays=overlays) == set(), "a subject's features stay, and nothing is stale"
    for words in (("verify", "results/given"), ("pack", "results/given", "given.tar.gz")):
        done = project.python("workflow/scripts/results.py", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    said = project.python("workflow/scripts/results.py", "disk", "--configfile", *overlays).stdout
    assert re.search(r"digits/dumped/true-labels/seed0 +0\.00", said), said
    with np.load(project.folder / "dumped/4-embedding.npz") as arrays:
        changed = {name: array * (2 if "features" in name else 1) for name, array in arrays.items()}
    np.savez(project.folder / "dumped/4-embedding.npz", **changed)
    why = project.python("workflow/scripts/results.py", "why", "--configfile", *overlays).stdout
    assert "value contents.dumped/4-embedding.npz.train_features" in why and "train_logits" not in why, why
    taken = {job for job in project.planned(overlays=overlays) if job[0] in ("given_features", "import_features")}
    assert {job[0] for job in taken} == {"given_features", "import_features"} and len(taken) == 2


def test_the_page_is_followed_literally(project: Project) -> None:
    """docs/your-own-features.md: a plain script, figures, verdicts, page; one subject with logits and one without."""
    page = (ROOT / "docs/your-own-features.md").read_text()
    for file, text in re.findall(r"New file `([^`]+)`:\n\n```\w+\n(.*?)```\n", page, re.DOTALL):
        (project.folder / file).write_text(text)
    (commands,) = re.findall(r"^Run:\n\n```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    embed, snakemake, verdicts = (shlex.split(line) for line in commands.splitlines())
    subprocess.run([sys.executable, *embed[1:]], cwd=project.folder, check=True)
    project.snakemake("--cores", "2", overlays=(snakemake[-1],))
    results = project.folder / "results/features"
    table = pd.read_parquet(results / "measures/measures.parquet")
    assert set(table.dataset) == {"clothes"} and set(table.step) == {0} and set(table.layer) == {"embedding"}
    by_subject = dict(iter(table.groupby("architecture")))
    assert set(by_subject["components"].model) - set(by_subject["pixels"].model) == {"dnn"}
    assert by_subject["components"].p_same.notna().any() and by_subject["pixels"].p_same.isna().all()
    test = table[table.split == "test"].groupby(["architecture", "model"]).accuracy.max()
    assert test.min() > 0.5, test
    said = project.python(*verdicts[1:])
    assert said.returncode == 0 and said.stdout.count("inconclusive") >= 4, said.stdout + said.stderr
    assert "Principal components" in (results / "report.html").read_text()
