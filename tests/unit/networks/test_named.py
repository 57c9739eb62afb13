"""Networks of libraries and one's own: probe points, embedding, what is checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dnn_or_knn.networks import stages
from dnn_or_knn.networks.build import create
from dnn_or_knn.networks.named import Named, mistakes
from dnn_or_knn.plan import networks
from dnn_or_knn.plan.configuration import load_overlays, resolve
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from snakemake.utils import update_config
from tiny_training import CLASSES, results, specification, stage
from torch import nn

OWN = '''
import torch
from torch import nn


class Noisy(nn.Module):
    """What must not be probed: an image's features depend on the others in its batch."""

    def forward(self, x):
        return x - x.mean(dim=0, keepdim=True)


def small(channels, size, classes, width=6, noisy=False):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), Noisy() if noisy else nn.Identity(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )


def mixed(channels, size, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes), nn.Tanh())


class Scaled(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(3, classes)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.fc(self.body(x))


def scaled(channels, size, classes):
    return Scaled(classes)


def kernel(channels, size, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Conv2d(channels, classes, 3), nn.Flatten())


def deep(channels, size, classes):
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7), nn.ReLU(), nn.Linear(7, classes)
    )


def large(channels, size, classes):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def wrong(channels, size, classes):
    raise ValueError("no such width")


def nothing(channels, size, classes):
    return None


def features(channels, size, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''
RESNET = {"module": "named", "network": "torchvision:resnet18"}


def named(spec: dict[str, Any], channels: int = 3, size: int = 32, seed: int = 0) -> Any:
    return create(spec, channels=channels, size=size, classes=CLASSES, seed=seed).eval()


def images(size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn((3, channels, size, size), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(OWN)
    return f"{tmp_path / 'nets.py'}"


def test_the_stages_of_a_resnet_are_its_probe_points() -> None:
    network = named(RESNET)
    assert [(p.name, p.dimensions, p.stage, p.kind) for p in network.probe_points] == [
        ("input", 3072, 0, "input"),
        ("relu", 64, 1, "unit"),
        ("layer1", 64, 2, "unit"),
        ("layer2", 128, 3, "unit"),
        ("layer3", 256, 4, "unit"),
        ("embedding", 512, 5, "embedding"),
    ]
    with torch.no_grad():
        made = network.activations(images())
        assert list(made) == ["relu", "layer1", "layer2", "layer3", "embedding"]
        model, x = network.model, images()
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        x = model.layer2(model.layer1(x))
        torch.testing.assert_close(made["layer2"], x.mean(dim=(2, 3)))
        embedding = model.avgpool(model.layer4(model.layer3(x))).flatten(1)
        torch.testing.assert_close(made["embedding"], embedding)
        assert torch.equal(network.embed(images()), made["embedding"])
        torch.testing.assert_close(network.classifier(embedding), network(images()))
    assert mistakes(network, images()) == {} and network.classifier.out_features == CLASSES


def test_layers_may_be_named_and_stand_in_the_order_given() -> None:
    network = named(RESNET | {"layers": ["layer1.0.conv1", "layer4"]})
    assert [point.name for point in network.probe_points] == ["input", "layer1_0_conv1", "layer4", "embedding"]
    with torch.no_grad():
        made = network.activations(images())
    torch.testing.assert_close(made["layer4"], made["embedding"])
    with pytest.raises(UserError, match=r"has no module 'layer9', which layers names .did you mean 'layer"):
        named(RESNET | {"layers": ["layer9"]})


def test_weights_are_those_of_the_library_and_follow_the_seed_alone() -> None:
    from torchvision import models

    torch.manual_seed(99)
    first, again, other = (named(RESNET, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["model.conv1.weight"], other["model.conv1.weight"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = models.resnet18(num_classes=CLASSES).state_dict()
    assert {f"model.{name}" for name in theirs} == first.keys()
    assert all(torch.equal(value, first[f"model.{name}"]) for name, value in theirs.items())


def test_grey_images_are_shown_in_three_equal_colours() -> None:
    network, grey = named(RESNET, channels=1), images(channels=1)
    with torch.no_grad():
        assert torch.equal(network(grey), network.model(grey.expand(-1, 3, -1, -1)))


def test_a_head_that_is_not_linear_is_said_and_its_logits_stand() -> None:
    network = named({"module": "named", "network": "torchvision:squeezenet1_1"}, size=64)
    found = mistakes(network, images(64))
    assert set(found) == {"head"} and "not linear" in found["head"]
    with torch.no_grad():
        assert torch.equal(network.classifier(network.embed(images(64))), network(images(64)))


def test_ones_own_function_is_called_with_the_geometry_and_the_options(own: str) -> None:
    network = named({"module": "named", "network": f"{own}:small", "options": {"width": 9}}, channels=1, size=8)
    assert [(p.name, p.dimensions) for p in network.probe_points] == [("input", 64), ("embedding", 9)]
    assert network.model[2].p == 0, "dropout is off"
    assert mistakes(network, images(8, 1)) == {}
    noisy = named({"module": "named", "network": f"{own}:small", "options": {"noisy": True}, "layers": ["1"]})
    assert set(mistakes(noisy, images())) == {"batch"} and "alone than in a batch" in mistakes(noisy, images())["batch"]
    mixed = named({"module": "named", "network": f"{own}:mixed"})
    assert set(mistakes(mixed, images())) == {"head"}


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"network": "torchvision:resnet81"}, "torchvision has no classifier 'resnet81'"),
        ({"network": "torchvision:vit_b_16"}, "does not take images of 3 × 32 × 32 .* set its `options`"),
        (
            {"network": "torchvision:resnet18", "options": {"image_size": 3}},
            "could not be built .* correct its options",
        ),
        ({"network": "torchvision:resnet18", "classifier": "layer1"}, "classifier names 'layer1'"),
        ({"network": "nowhere/net.py:small"}, "no file nowhere/net.py"),
        ({"network": "OWN:smal"}, "has no function 'smal' .did you mean 'small'"),
        ({"network": "OWN:features"}, "not logits"),
        ({"network": "OWN:large"}, "does not take images of 3 × 32 × 32"),
        ({"network": "OWN:wrong"}, r"wrong could not be built .no such width."),
        ({"network": "OWN:nothing"}, "returns a NoneType, not a module"),
        ({"network": "OWN:small", "sha256": "0"}, "was changed since this job was planned"),
    ],
)
def test_what_cannot_be_is_one_sentence(network: dict[str, Any], said: str, own: str) -> None:
    spec = {"module": "named"} | network | {"network": network["network"].replace("OWN", own)}
    with pytest.raises(UserError, match=said):
        named(spec)


def test_ones_own_file_may_hold_dataclasses_and_its_mistakes_are_one_sentence(own: str, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Width:\n    x: int = 1\n"
        + OWN
    )
    assert named({"module": "named", "network": f"{tmp_path / 'data.py'}:small"}).classes == CLASSES
    (tmp_path / "bad.py").write_text("import no_such_module_here\n")
    with pytest.raises(UserError, match=r"bad\.py could not be run .ModuleNotFoundError"):
        named({"module": "named", "network": f"{tmp_path / 'bad.py'}:small"})


def test_logits_stand_where_weights_make_the_head_more_than_linear(own: str) -> None:
    network = named({"module": "named", "network": f"{own}:scaled"})
    assert mistakes(network, images()) == {}
    with torch.no_grad():
        network.model.scale.fill_(3)
        assert torch.equal(network.classifier(network.embed(images())), network(images()))
    assert set(mistakes(network, images())) == {"head"}


def test_logits_are_float32_under_autocast(own: str) -> None:
    network = named({"module": "named", "network": f"{own}:small"})
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            embedding = network.embed(images())
        expected = nn.functional.linear(embedding, network.model[6].weight, network.model[6].bias)
        torch.testing.assert_close(network.classifier(embedding), expected)


def test_a_head_of_another_shape_is_not_linear_and_has_a_logit_a_class(own: str) -> None:
    for name, more in (("kernel", {}), ("deep", {"classifier": "2"})):
        network = named({"module": "named", "network": f"{own}:{name}"} | more)
        assert set(mistakes(network, images())) == {"head"} and not network.linear
        with torch.no_grad():
            logits = network.classifier(network.embed(images()))
        assert logits.shape[1] == network.classifier.out_features == CLASSES


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm:resnet18 needs timm.*envs/timm.txt"):
        named({"module": "named", "network": "timm:resnet18"})


def test_maps_and_tokens_are_pooled_over_their_positions() -> None:
    random = torch.Generator().manual_seed(2)
    maps = torch.randn((2, 5, 3, 3), generator=random)
    torch.testing.assert_close(stages.pooled(maps), maps.mean(dim=(2, 3)))
    torch.testing.assert_close(stages.pooled(maps.permute(0, 2, 3, 1)), maps.mean(dim=(2, 3)))
    tokens = torch.randn((2, 7, 4), generator=random)
    torch.testing.assert_close(stages.pooled((tokens, None)), tokens.mean(dim=1))
    assert stages.resolution((2, 5, 3, 3)) == stages.resolution((2, 3, 3, 5)) == (3, 3)


def test_blocks_of_one_resolution_are_all_probed(own: str, tmp_path: Path) -> None:
    (tmp_path / "row.py").write_text(
        "from torch import nn\n"
        "def net(channels, size, classes):\n"
        "    blocks = [nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()) for _ in range(4)]\n"
        "    return nn.Sequential(nn.Conv2d(channels, 6, 4, stride=4), nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1),"
        " nn.Flatten(), nn.Linear(6, classes))\n"
    )
    network = named({"module": "named", "network": f"{tmp_path / 'row.py'}:net"})
    assert list(network.layers.values()) == ["1.0", "1.1", "1.2"], "the last one is the embedding"


def test_it_is_trained_and_extracted_as_the_papers_are(own: str, tmp_path: Path) -> None:
    """Both stages as commands; a training that is started again gives the same weights."""
    network = {"module": "named", "network": f"{own}:small", "layers": ["1"], "sha256": files.sha256(own)}
    found = []
    for name in ("first", "second"):
        subprocess.run(stage(tmp_path, specification() | {"network": network}, name), check=True, capture_output=True)
        found.append(results(tmp_path / name))
    assert found[0] == found[1]
    told = {
        "run": "made",
        "network": network,
        "precision": "float32",
        "batch_size": 50,
        "compile": False,
        "steps": [12],
    }
    command = stage(tmp_path, told | {"layers": ["1", "embedding"], "input_layer": "pixels"}, "first/features")
    command[1] = command[1].replace("train.py", "features.py")
    command[-1] = command[-1].replace("training.json", "shard.json")
    training = tmp_path / "first/training.json"
    done = subprocess.run([*command, "--training", str(training)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "first/features/shard.json").read_text())
    assert manifest["layers"] == [{"name": "1", "dimensions": 6}, {"name": "embedding", "dimensions": 6}]
    features, logits = (
        torch.from_numpy(files.read_npy(tmp_path / "first" / place / f"step000012_{name}.npy"))
        for place, name in (("features/shard", "embedding_test"), ("logits/shard", "test"))
    )
    weights = torch.load(tmp_path / "first/checkpoints/step000012.pt", weights_only=True)["model"]
    torch.testing.assert_close(features @ weights["model.6.weight"].T + weights["model.6.bias"], logits)


# In the configuration.


def complete(block: dict[str, Any], names: list[str], **figures: Any) -> dict[str, Any]:
    config = load_overlays()
    run = {"architectures": names, "datasets": ["mnist"], "labels": "a", "steps": 4, "evaluate_every": 2}
    update_config(config, {"architectures": block, "runs": [run], "figures": figures})
    return resolve(config)


def test_a_network_goes_by_its_source_everywhere_in_the_configuration(own: str) -> None:
    source = f"{own}:small"
    block = {
        "torchvision:resnet18": {"title": "ResNet-18", "depth": 18},
        source: {"options": {"width": 3}},
        "mine": {"network": source},
    }
    made = complete(block, ["torchvision:resnet18", source, "mine"], architecture="torchvision:resnet18")
    assert {"torchvision-resnet18", "nets-small", "mine"} <= set(made["architectures"])
    assert made["runs"][0]["architectures"] == ["torchvision-resnet18", "nets-small", "mine"]
    assert made["figures"]["architecture"] == "torchvision-resnet18"
    assert resolve(made) == made, "what the head froze is read again"
    told = {name: networks.told(name, options) for name, options in made["architectures"].items()}
    assert told["torchvision-resnet18"] == {
        "module": "named",
        "network": "torchvision:resnet18",
        "layers": "auto",
        "classifier": "auto",
        "options": {},
    }
    assert told["nets-small"]["sha256"] == files.sha256(own) and told["nets-small"]["options"] == {"width": 3}
    depths = [
        networks.depth(name, made["architectures"][name]) for name in ("torchvision-resnet18", "wrn-28-10", "mine")
    ]
    assert depths == [18, 28, float("inf")]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"mine": {"network": "nowhere.py:net"}}, "a file that is there"),
        ({"mine": {"network": "resnet18"}}, "write torchvision:<model>"),
        ({"my net": {"network": "torchvision:resnet18"}}, "the name 'my net'"),
        ({"torchvision:resnet18": {"layer": "auto"}}, "unknown key 'layer'.*did you mean 'layers'"),
        ({"torchvision:resnet18": {}, "torchvision-resnet18": {"network": "torchvision:resnet18"}}, "one folder"),
        ({"a/net.py:small": {}, "b/net.py:small": {}}, "'b/net.py:small' and 'a/net.py:small', which have one folder"),
    ],
)
def test_a_bad_entry_is_one_sentence(block: dict[str, Any], said: str) -> None:
    from dnn_or_knn.plan.runs import create as runs_of

    with pytest.raises(UserError, match=said):
        runs_of(complete(block, [next(iter(block))]))


def test_the_plan_imports_no_torch() -> None:
    code = (
        "import sys; import dnn_or_knn.plan.startup; sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    from conftest import SCRIPTS

    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS), "PATH": ""}).returncode == 0


def test_named_networks_are_modules() -> None:
    assert issubclass(Named, nn.Module)
