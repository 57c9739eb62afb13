"""Training under kill -9 at random moments: what is left in the end is what an undisturbed run leaves, byte for byte."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import pytest
from dnn_or_knn.runtime import files
from tiny_training import results, specification, stage, started

KILLS = 12
SPEC = specification(steps=1200, batch_size=10, decay_at=[400, 800]) | {
    "checkpoints": [0, *range(3, 1200, 60), 1200],
    "accuracy_at": [*range(0, 1200, 100)],
}


def wait_until_open(folder: Path, process) -> None:
    """Wait until the process works in the state folder: its lock file names it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lock = folder / "lock"
        if lock.is_file() and lock.read_text().strip() == str(process.pid):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    raise AssertionError("the process never opened its state folder")


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", ["full", "buffer"])
def test_training_survives_kills_at_random_moments(tmp_path, shuffle):
    spec = SPEC | {"training": SPEC["training"] | {"shuffle": shuffle}}
    whole = started(stage(tmp_path, spec, "whole"))
    _, text = whole.communicate()
    assert whole.returncode == 0, text
    reference = results(tmp_path / "whole")
    rng = random.Random(f"kills/{shuffle}")
    kills = lost = finished = 0
    while kills < KILLS or finished == 0:
        command = stage(tmp_path, spec, f"parts{finished}")
        run = tmp_path / f"parts{finished}"
        for output in ("checkpoints", "training.json", "training.provenance.json", "history.csv"):
            files.remove(run / output)  # as Snakemake does before it starts a job
        process = started(command, "--save-every", str(rng.choice([0.0, 0.02, 0.1])))
        if kills < KILLS:
            wait_until_open(run / ".state" / "training", process)
            time.sleep(rng.random() ** 2 * 1.5)
            process.kill()
        _, text = process.communicate()
        if process.returncode == 0:
            assert results(run) == reference
            finished += 1
            continue
        assert process.returncode == -9, text
        kills += 1
        lost += "resuming at step" not in text
    sessions = files.read_json(run / "training.provenance.json")["sessions"]
    assert all(one["to"] == two["from"] for one, two in itertools.pairwise(sessions))
    assert lost < kills, "no kill found a state that could be resumed"


@pytest.mark.slow
def test_kills_while_results_are_put_into_place_lose_nothing(tmp_path):
    """A run that is done but not yet published: killed there again and again, it never trains again."""
    spec = specification(steps=60) | {"checkpoints": [*range(61)]}
    whole = started(stage(tmp_path, spec, "whole"))
    assert whole.wait() == 0
    whole.communicate()
    command, run = stage(tmp_path, spec, "parts"), tmp_path / "parts"
    rng = random.Random(0)
    for number in range(4):
        process = started(command)
        wait_until_open(run / ".state" / "training", process)
        while number == 0 and not list((run / ".state" / "training").glob("state-*")) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.communicate()
    process = started(command)
    _, text = process.communicate()
    assert process.returncode == 0, text
    assert results(run) == results(tmp_path / "whole")
