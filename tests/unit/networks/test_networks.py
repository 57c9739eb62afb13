"""The networks: sizes, names, options, initial weights, and arithmetic against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from dnn_or_knn.networks import build, parts
from dnn_or_knn.networks.input import standardize
from dnn_or_knn.runtime.errors import UserError
from torch.nn import functional as F

AUTHORS = {
    "activation": "leaky_relu",
    "shortcut": "pool",
    "initialization": "authors",
    "batch_norm_momentum": 0.01,
    "batch_norm_eps": 1e-3,
    "normalize_embedding": True,
}
SMALL_WRN = {"module": "wrn", "depth": 10, "width": 1}
SPECS = [
    {"module": "mlp", "width": 12},
    {"module": "lenet", "embedding": 12},
    SMALL_WRN,
    {"module": "wrn", "depth": 16, "width": 2, **AUTHORS},
    {"module": "lenet", "embedding": 9, "normalize_embedding": True, "initialization": "glorot"},
]


def create(spec: dict, channels: int = 1, size: int = 8, classes: int = 10, **more: object) -> torch.nn.Module:
    return build.create(spec, channels=channels, size=size, classes=classes, **more)


def batch(count: int, channels: int, size: int) -> torch.Tensor:
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=torch.Generator().manual_seed(1))
    return standardize(pixels.to(torch.uint8))


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_papers_network_has_the_published_size_and_probe_points():
    network = create({"module": "wrn", "depth": 28, "width": 10}, channels=3, size=32)
    assert parameters(network) == 36_479_194
    units = [f"unit_{stage}_{unit}" for stage in (1, 2, 3) for unit in (1, 2, 3, 4)]
    assert [point.name for point in network.probe_points] == ["input", "initial_conv", *units, "embedding"]
    assert [point.dimensions for point in network.probe_points] == [3072, 16, *[160] * 4, *[320] * 4, *[640] * 5]
    assert [point.stage for point in network.probe_points] == [0, 0, *[1] * 4, *[2] * 4, *[3] * 4, 4]
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 28  # 25 with a 3×3 kernel, 3 shortcuts
    assert all(module.bias is None for module in convolutions)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("depth", [10, 22])
@pytest.mark.parametrize("shortcut", ["conv", "pool"])
def test_wide_resnet_has_as_many_parameters_as_counted_by_hand(depth, width, shortcut):
    network = create({"module": "wrn", "depth": depth, "width": width, "shortcut": shortcut}, channels=3, classes=7)
    expected, inputs = 3 * 16 * 9, 16
    for stage in range(3):
        outputs = 16 * width * 2**stage
        for _ in range((depth - 4) // 6):
            expected += 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs * outputs
            if inputs != outputs and shortcut == "conv":
                expected += inputs * outputs
            inputs = outputs
    expected += 2 * inputs + inputs * 7 + 7
    assert parameters(network) == expected


def test_lenet_and_mlp_have_as_many_parameters_as_counted_by_hand():
    lenet = create({"module": "lenet"}, channels=3, size=32)
    assert parameters(lenet) == (75 * 32 + 32) + (800 * 64 + 64) + (4096 * 640 + 640) + 6410
    assert parameters(create({"module": "mlp", "width": 640}, size=28)) == 784 * 640 + 640 + 6410


@pytest.mark.parametrize("channels, size", [(1, 8), (1, 28), (3, 32)])
@pytest.mark.parametrize("spec", SPECS)
def test_every_network_takes_every_image_and_keeps_its_word_on_dimensions(spec, channels, size):
    network = create(spec, channels=channels, size=size, classes=5).eval()
    x = batch(3, channels, size)
    with torch.no_grad():
        made, embedding, logits = network.activations(x), network.embed(x), network(x)
    points = network.probe_points
    assert points[0] == parts.ProbePoint("input", channels * size * size, 0, "input")
    assert {p.name: (3, p.dimensions) for p in points[1:]} == {name: tuple(t.shape) for name, t in made.items()}
    assert list(made) == [p.name for p in points[1:]]
    assert points[-1].name == points[-1].kind == "embedding"
    assert torch.equal(made["embedding"], embedding)
    torch.testing.assert_close(logits, embedding @ network.classifier.weight.T + network.classifier.bias)
    assert logits.shape == (3, 5)
    if spec.get("normalize_embedding"):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    else:
        assert (embedding.norm(dim=1) - 1).abs().min() > 1e-3


def plain_wrn(state: dict, x: torch.Tensor, spec: dict, training: bool) -> dict[str, torch.Tensor]:
    """WRN-16-k written out from the definition, with no module: pooled activations and logits."""
    slope = 0.1 if spec.get("activation") == "leaky_relu" else 0.0
    eps = spec.get("batch_norm_eps", 1e-5)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        x = (x - mean[:, None, None]) / (variance[:, None, None] + eps).sqrt()
        x = x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]
        return torch.where(x < 0, slope * x, x)

    def pooled(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x < 0, slope * x, x).mean((2, 3))

    x = F.conv2d(x, state["initial_conv.weight"], padding=1)
    made = {"initial_conv": pooled(x)}
    for stage in (1, 2, 3):
        for unit in (1, 2):
            name, stride = f"units.unit_{stage}_{unit}", 2 if stage > 1 and unit == 1 else 1
            active = norm(x, f"{name}.bn1")
            residual = F.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            residual = F.conv2d(norm(residual, f"{name}.bn2"), state[f"{name}.conv2.weight"], padding=1)
            if residual.shape != x.shape and spec.get("shortcut") == "pool":
                x = active if stage == 1 else x
                if stride == 2:
                    x = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
                zeros = torch.zeros_like(residual[:, : (residual.shape[1] - x.shape[1]) // 2])
                x = torch.cat([zeros, x, zeros], dim=1)
            elif residual.shape != x.shape:
                x = F.conv2d(active, state[f"{name}.projection.weight"], stride=stride)
            x = x + residual
            made[f"unit_{stage}_{unit}"] = pooled(x)
    embedding = norm(x, "bn").mean((2, 3))
    if spec.get("normalize_embedding"):
        embedding = embedding / embedding.square().sum(1, keepdim=True).sqrt()
    made["embedding"] = embedding
    return {**made, "logits": embedding @ state["classifier.weight"].T + state["classifier.bias"]}


@pytest.mark.parametrize("options", [{}, AUTHORS], ids=["paper", "authors"])
@pytest.mark.parametrize("training", [True, False])
def test_wide_resnet_computes_what_its_definition_says(options, training):
    spec = {"module": "wrn", "depth": 16, "width": 2, **options}
    network = create(spec, channels=3, size=8, dtype=torch.float64).train(training)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # no weight and no statistic is left at a value that hides its use
        for tensor in network.state_dict().values():
            if tensor.dtype == torch.float64 and tensor.dim() == 1:
                tensor += torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    x = batch(4, 3, 8).double()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = plain_wrn(state, x, spec, training)
    with torch.no_grad():
        made = {**network.activations(x)}
        network.load_state_dict(state)
        made["logits"] = network(x)
    assert made.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(made[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("momentum", [0.1, 0.01])
def test_batch_norm_momentum_is_the_weight_of_the_new_batch(momentum):
    network = create({**SMALL_WRN, "batch_norm_momentum": momentum}, channels=3)
    x = batch(6, 3, 8)
    with torch.no_grad():
        first = network.initial_conv(x)
        network(x)
    torch.testing.assert_close(network.units["unit_1_1"].bn1.running_mean, momentum * first.mean((0, 2, 3)))


def test_evaluation_mode_leaves_the_statistics_alone_and_images_apart():
    network = create({"module": "wrn", "depth": 10, "width": 2}, channels=3).eval()
    x = batch(6, 3, 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        together, alone = network.embed(x), torch.cat([network.embed(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_odd_sizes_pass_both_shortcuts():
    for shortcut in ("conv", "pool"):
        assert create({**SMALL_WRN, "shortcut": shortcut}, size=7)(batch(2, 1, 7)).shape == (2, 10)


@pytest.mark.parametrize("spec", SPECS)
def test_initial_weights_depend_on_the_seed_alone(spec):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = create(spec, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)  # the global stream is untouched
    torch.manual_seed(2)
    again, other = create(spec, seed=3).state_dict(), create(spec, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].dim() > 1]
    assert drawn and not any(torch.equal(first[name], other[name]) for name in drawn)
    double = create(spec, seed=3, dtype=torch.float64).state_dict()
    assert all(torch.equal(first[name].double(), double[name].double()) for name in first)


@pytest.mark.parametrize("how", ["he", "glorot", "authors"])
def test_initial_weights_have_the_stated_distribution(how):
    network = create({"module": "wrn", "depth": 10, "width": 8, "initialization": how}, channels=3, classes=100)
    unit = network.units["unit_2_1"]  # 128 → 256 channels
    variance = {
        "he": {unit.conv1: 2 / (9 * 128), unit.projection: 2 / 128, network.classifier: 1 / 512},
        "glorot": {unit.conv1: 2 / (9 * 384), unit.projection: 2 / 384, network.classifier: 2 / 612},
        "authors": {unit.conv1: 2 / (9 * 256), unit.projection: 2 / 256, network.classifier: 1 / 512},
    }[how]
    for layer, expected in variance.items():
        weight = layer.weight.detach()
        assert weight.var().item() == pytest.approx(expected, rel=0.05)
        assert abs(weight.mean().item()) < 4 * math.sqrt(expected / weight.numel())
        uniform = weight.abs().max().item() <= math.sqrt(3 * expected) * (1 + 1e-6)
        assert uniform == (how == "glorot" or (how == "authors" and layer is network.classifier))
    assert not network.classifier.bias.any()


@pytest.mark.parametrize("module", ["mlp", "lenet"])
def test_small_networks_start_with_the_stated_distributions(module):
    spec = {"module": module, **({"width": 640} if module == "mlp" else {})}
    for how, hidden, last in (("he", lambda i: 2 / i, 1 / 640), ("authors", lambda i: 2 / (i + 640), 2 / 740)):
        network = create({**spec, "initialization": how}, size=28, classes=100)
        inputs = network.hidden.in_features
        assert network.hidden.weight.var().item() == pytest.approx(hidden(inputs), rel=0.03)
        assert network.classifier.weight.var().item() == pytest.approx(last, rel=0.03)
        assert not network.hidden.bias.any() and not network.classifier.bias.any()


def test_leaky_relu_widens_he_by_its_slope():
    deviations = [
        create({**SMALL_WRN, "width": 4, "activation": name}).units["unit_3_1"].conv2.weight.std().item()
        for name in ("relu", "leaky_relu")
    ]
    assert deviations[1] / deviations[0] == pytest.approx(1 / math.sqrt(1.01), rel=1e-5)


def test_logits_and_features_are_float32_under_bfloat16_autocast():
    network = create({"module": "wrn", "depth": 10, "width": 1}, channels=3).eval()
    x = batch(4, 3, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        made, logits = network.activations(x), network(x)
        embedding = network.embed(x)
    assert {t.dtype for t in made.values()} | {logits.dtype} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(logits, network.classifier(embedding), rtol=1e-6, atol=1e-6)


def test_a_network_does_not_care_about_memory_format():
    network = create({"module": "wrn", "depth": 10, "width": 2, **AUTHORS}, channels=3).eval()
    x = batch(4, 3, 8)
    with torch.no_grad():
        plain = network(x)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            network(x.contiguous(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"module": "wrn", "depth": 27, "width": 2}, ["network.depth is 27", "28"]),
        ({"module": "wrn", "depth": 4, "width": 2}, ["network.depth is 4", "10"]),
        ({"module": "wrn", "depth": 10}, ["network.width", "missing"]),
        ({"module": "wrn", "depth": 10, "width": 0}, ["network.width", "0", "whole number"]),
        ({"module": "wrn", "depth": 10, "width": True}, ["network.width", "True"]),
        ({**SMALL_WRN, "shortcut": "pol"}, ["network.shortcut", "'pol'", "did you mean 'pool'"]),
        ({**SMALL_WRN, "activation": "leaky"}, ["network.activation", "'leaky'", "did you mean 'leaky_relu'"]),
        ({**SMALL_WRN, "shortcuts": "pool"}, ["network.shortcuts", "did you mean 'shortcut'"]),
        ({**SMALL_WRN, "batch_norm_eps": 0}, ["network.batch_norm_eps", "above 0"]),
        ({**SMALL_WRN, "batch_norm_momentum": float("nan")}, ["network.batch_norm_momentum", "nan"]),
        ({**SMALL_WRN, "normalize_embedding": 1}, ["network.normalize_embedding", "true or false"]),
        ({"module": "mlp", "width": 8, "shortcut": "pool"}, ["network.shortcut", "'mlp'"]),
        ({"module": "vgg"}, ["network.module is 'vgg'", "networks/vgg.py"]),
        ({"module": "../mlp"}, ["network.module"]),
        ({}, ["network.module is None"]),
    ],
)
def test_bad_options_are_refused_in_one_sentence(spec, words):
    with pytest.raises(UserError) as caught:
        create(spec)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_pooling_before_relu_changes_no_bit_of_lenet_nor_of_its_gradients():
    network = build.create({"module": "lenet", "embedding": 16}, channels=1, size=12, classes=3)
    x = torch.randn(20, 1, 12, 12, generator=torch.Generator().manual_seed(0)).relu()
    x[:, :, :8] = x[:, :, :1, :1]  # flat, as MNIST's background: all positions of a pool are equal there
    found = []
    for embedding in (network.activations(x)["embedding"], network.embed(x)):
        gradients = torch.autograd.grad(embedding.square().sum(), [*network.parameters()][:-2])
        found.append([embedding, *gradients])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in found[0])


def test_lenet_refuses_images_that_it_cannot_halve_twice():
    with pytest.raises(UserError, match="3×3"):
        create({"module": "lenet"}, size=3)
