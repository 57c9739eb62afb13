"""Networks that see (pixel − mean) / std."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from dnn_or_knn.features.extraction import forward_function
from dnn_or_knn.networks.build import create
from dnn_or_knn.networks.normalized import Normalization
from tiny_training import CLASSES, LENET, MLP, WRN, results, specification, stage

MEAN, STD = [0.1, 0.5, 0.9], [0.2, 0.3, 1.5]


def wrapped(network: dict) -> dict:
    return {"module": "normalized", "mean": MEAN, "std": STD, "network": network}


def test_normalization_is_torchvisions(tmp_path: Path) -> None:
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = normalize(images.double() / 255, MEAN, STD)
    torch.testing.assert_close(Normalization(MEAN, STD)(images, torch.float64), expected)
    last = Normalization(MEAN, STD)(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last) and last.dtype == torch.float32


@pytest.mark.parametrize("network", [MLP, LENET, WRN])
def test_the_network_within_is_the_same_but_for_its_input(network: dict) -> None:
    geometry = {"channels": 3, "size": 8, "classes": CLASSES}
    plain, made = create(network, **geometry, seed=4), create(wrapped(network), **geometry, seed=4)
    assert plain.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in plain.state_dict().items())
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    forward = forward_function(made.eval(), ["embedding"], device=torch.device("cpu"), precision="float32")
    with torch.no_grad():
        assert torch.equal(forward(images)["logits"], made(Normalization(MEAN, STD)(images)))


def test_it_is_trained_and_extracted_and_streams_to_the_same_bits(tmp_path: Path) -> None:
    """Training and extraction as commands, with images in memory and on disk."""
    found = {}
    for name, more in (("resident", {}), ("streamed", {"stream": True})):
        spec = specification() | {"network": wrapped(LENET)} | more
        subprocess.run(stage(tmp_path, spec, name), check=True, capture_output=True)
        told = {
            "network": spec["network"],
            "precision": "float32",
            "batch_size": 50,
            "compile": False,
            "steps": [0, 12],
            "layers": "hidden",
            "input_layer": "mean",
            "run": "made/lenet/true/seed3",
        }
        command = stage(tmp_path, told | more, f"{name}/features")
        command[1] = command[1].replace("train.py", "features.py")
        command[-1] = command[-1].replace("training.json", "shard.json")
        done = subprocess.run(
            [*command, "--training", str(tmp_path / name / "training.json")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found[name] = results(tmp_path / name)
    assert found["resident"] == found["streamed"]
    assert any("input" in file for file in found["resident"])
    trained = json.loads((tmp_path / "resident/training.json").read_text())
    assert np.isfinite(trained["final_loss"])
