"""Sizes known without building: networks counted as torch counts them, images as the data sets have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dnn_or_knn.data.loaders import bundled, digits
from dnn_or_knn.networks import build
from dnn_or_knn.plan import machine, runs
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.registry import DATASETS
from dnn_or_knn.plan.runs import network
from dnn_or_knn.plan.sizes import activations, parameters, probe_points, train_images
from dnn_or_knn.runtime.errors import UserError

NETWORKS = {
    "mlp640": {},
    "lenet": {"embedding": 128},
    "wrn-10-1": {"shortcut": "conv"},
    "wrn-10-2": {"shortcut": "pool"},
    "wrn-28-10": {"shortcut": "conv"},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dataset", ["digits", "cifar100"])
def test_a_network_is_counted_as_torch_counts_it(name: str, dataset: str) -> None:
    spec, image = network({"architectures": {name: NETWORKS[name]}}, name), DATASETS[dataset]
    geometry = {key: image[key] for key in ("channels", "size", "classes")}
    with torch.device("meta"):
        made = build.create(spec, **geometry)
    assert parameters(spec, image) == sum(p.numel() for p in made.parameters())
    assert probe_points(spec) == [point.name for point in made.probe_points]
    sizes = []
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module is not made.classifier:
            module.register_forward_hook(lambda _module, _x, y: sizes.append(y.numel()))
    made.embed(torch.empty(1, image["channels"], image["size"], image["size"], device="meta"))
    # Shortcuts by convolution come on top of what is counted.
    assert 0.8 * sum(sizes) <= activations(spec, image) <= sum(sizes)


def test_a_data_set_has_as_many_images_as_the_registry_says(tmp_path) -> None:
    for fraction in (0.2, 0.31):
        options = {"test_fraction": fraction, "split_seed": 0}
        made = digits.load(options, tmp_path, False)
        assert train_images(DATASETS["digits"], options) == len(made.train_images)
    made = bundled.load(DATASETS["fashion14"], tmp_path, False)
    assert DATASETS["fashion14"]["images"] == [len(made.train_images), len(np.unique(made.test_images, axis=0))]
    assert train_images(DATASETS["mnist"], {}) == 60_000 and train_images(DATASETS["cifar100"], {}) == 50_000


def test_a_folder_or_a_gpu_that_is_not_here_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    paper = runs.create(load_overlays())
    root = paper.config["data"]
    file = tmp_path / "file"
    file.touch()
    for where, download, said in (
        (tmp_path / "no", False, "which is not there"),
        (file, True, "no folder"),
        (file / "below", True, "cannot be made in"),
    ):
        root |= {"root": str(where), "download": download}
        with pytest.raises(UserError, match=said):
            machine.refuse(paper.config, paper.runs, local=True)
    root |= {"root": str(tmp_path / "new"), "download": True}
    machine.refuse(paper.config, paper.runs, local=True)
    paper.config["device"] = "cuda"
    machine.refuse(paper.config, paper.runs, local=False)
    with pytest.raises(UserError, match="shows no GPU"):
        machine.refuse(paper.config, paper.runs, local=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    machine.refuse(paper.config, paper.runs, local=True)
