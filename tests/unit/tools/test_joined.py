"""Configurations of archives that were made apart are put together run by run, and refused where they differ elsewhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from dnn_or_knn.plan import runs
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.tools.joined import joined

Part = Callable[..., dict[str, Any]]
ALL = ("mnist", "cifar10", "cifar100")
CPU = Path(__file__).resolve().parents[3] / "config" / "cpu.yaml"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What lies frozen with the results of config/cpu.yaml, three data sets and three seeds."""
    return runs.create(load_overlays(CPU)).config


@pytest.fixture
def part(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return the frozen configuration of one part of config/cpu.yaml: of some data sets alone, with other values."""

    def complete(datasets: Sequence[str] = ALL, **changes: Any) -> dict[str, Any]:
        overlay = tmp_path / "part.yaml"
        overlay.write_text(json.dumps({"datasets": dict.fromkeys(set(ALL) - set(datasets))} | changes))
        return runs.create(load_overlays(CPU, overlay)).config

    return complete


def named(*configs: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    return {Path(f"{letter}.tar.gz"): config for letter, config in zip("abcd", configs, strict=False)}


def planned(config: dict[str, Any]) -> dict[str, Any]:
    """Return what each run of a configuration is."""
    return {name: (run.network, run.checkpoints, run.training) for name, run in runs.create(config).runs.items()}


def test_columns_and_seeds_come_together_to_the_whole(whole: dict[str, Any], part: Part) -> None:
    parts = [part(datasets=["cifar10"]), part(datasets=["cifar100"], seeds=[1, 0, 2]), part(datasets=["mnist"])]
    made = joined(named(*parts))
    assert planned(made) == planned(whole) and len(planned(made)) == 45
    assert list(made["datasets"]) == list(whole["datasets"]) and made["seeds"] == [0, 1, 2]
    parts = [part(seeds=[2]), part(seeds=[0]), part(seeds=[1])]
    assert planned(joined(named(*parts))) == planned(whole)


def test_what_is_there_of_each_is_there_together_and_no_more(part: Part) -> None:
    first, second, third = (
        part(datasets=["mnist"], seeds=[0]),
        part(datasets=["mnist"], seeds=[1]),
        part(datasets=["cifar10"], seeds=[0]),
    )
    before = copy.deepcopy([first, second, third])
    made = joined(named(first, second, third))
    assert planned(made).keys() == {*planned(first), *planned(second), *planned(third)}
    assert len(planned(made)) == 15
    assert [first, second, third] == before, "what was given is as it was"
    assert planned(joined(named(first, copy.deepcopy(first)))) == planned(first)
    assert joined(named(first)) == first


def test_where_data_lie_and_how_jobs_run_may_differ(part: Part) -> None:
    first, second = part(datasets=["mnist"]), part(datasets=["cifar10"], data={"root": "/data", "download": False})
    assert joined(named(first, second))["data"] == first["data"]


def test_what_an_earlier_version_did_not_know_has_its_default(part: Part) -> None:
    earlier = part(datasets=["mnist"])
    del earlier["keep"]["features"], earlier["measures"]["nearly_memorized"]
    made = joined(named(part(datasets=["cifar10"]), earlier))
    assert made["measures"] == part()["measures"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["probes"]["knn"].update(k=20), r"b\.tar\.gz has probes\.knn\.k: 20, but a\.tar\.gz has 30"),
        (lambda c: c["measures"].update(replicates=10), r"has measures\.replicates: 10, but"),
        (
            lambda c: c["architectures"]["lenet"].update(initialization="he"),
            r"has architectures\.lenet\.initialization: 'he'",
        ),
        (lambda c: c["keep"].update(weights_every=5), r"has keep\.weights_every: 5, but"),
        (lambda c: c.update(layer_input="mean"), r"has layer_input: 'mean'"),
    ],
)
def test_a_difference_is_named(part: Part, change: Any, words: str) -> None:
    other = part(datasets=["cifar10"])
    change(other)
    with pytest.raises(UserError, match=words) as caught:
        joined(named(part(datasets=["mnist"]), other))
    assert "\n" not in str(caught.value)
