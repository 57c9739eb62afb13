"""torchvision's classifiers, and one each of many of timm's families, with random weights: which pass, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from dnn_or_knn.networks import named

pytestmark = pytest.mark.slow

#: What torchvision lists; those under `REASONS` do not pass.
TORCHVISION = [
    "alexnet",
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_v2_l",
    "efficientnet_v2_m",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mnasnet0_75",
    "mnasnet1_0",
    "mnasnet1_3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_16gf",
    "regnet_x_1_6gf",
    "regnet_x_32gf",
    "regnet_x_3_2gf",
    "regnet_x_400mf",
    "regnet_x_800mf",
    "regnet_x_8gf",
    "regnet_y_128gf",
    "regnet_y_16gf",
    "regnet_y_1_6gf",
    "regnet_y_32gf",
    "regnet_y_3_2gf",
    "regnet_y_400mf",
    "regnet_y_800mf",
    "regnet_y_8gf",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_b",
    "swin_s",
    "swin_t",
    "swin_v2_b",
    "swin_v2_s",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vit_b_16",
    "vit_b_32",
    "vit_h_14",
    "vit_l_16",
    "vit_l_32",
    "wide_resnet101_2",
    "wide_resnet50_2",
]
REASONS = {
    "squeezenet1_0": "head",  # a convolution, ReLU and then the mean over positions
    "squeezenet1_1": "head",
}
#: Images of other than 64 pixels a side, and the options that say so.
SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "inception_v3": (96, {}),
    "maxvit_t": (224, {}),
    "vit_h_14": (56, {"image_size": 56}),
} | {name: (64, {"image_size": 64}) for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")}
#: One of a family each, on 64 pixels; those of the second list are told so.
TIMM = [
    "convnext_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "darknet17",
    "davit_tiny",
    "densenet121",
    "dla46_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientnet_lite0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "ghostnet_050",
    "hardcorenas_a",
    "hgnet_tiny",
    "hieradet_small",
    "hrnet_w18_small",
    "inception_next_atto",
    "lcnet_035",
    "mambaout_femto",
    "mnasnet_small",
    "mobilenetv3_small_050",
    "mobileone_s0",
    "mobilevit_xxs",
    "nfnet_f0",
    "poolformer_s12",
    "pvt_v2_b0",
    "regnetx_002",
    "repghostnet_050",
    "repvgg_a0",
    "repvit_m0_9",
    "res2net50_26w_4s",
    "resnest14d",
    "resnet18",
    "resnetv2_50",
    "rexnet_100",
    "selecsls42",
    "sequencer2d_s",
    "seresnet18",
    "shvit_s1",
    "starnet_s1",
    "tiny_vit_5m_224",
    "tinynet_e",
    "twins_svt_small",
    "vgg11",
    "xception41",
    "xcit_nano_12_p16_224",
]
TIMM_SIZED = [
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "deit_tiny_distilled_patch16_224",
    "eva02_tiny_patch14_224",
    "gcvit_xxtiny",
    "hiera_tiny_224",
    "levit_128s",
    "maxvit_nano_rw_256",
    "mixer_s32_224",
    "nest_tiny",
    "pit_ti_224",
    "swin_tiny_patch4_window7_224",
    "tnt_s_patch16_224",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "volo_d1_224",
]
#: Two heads, whose logits are averaged, or an auxiliary one that is added.
TWO_HEADS = [
    "crossvit_tiny_240",
    "deit_tiny_distilled_patch16_224",
    "efficientformer_l1",
    "levit_128s",
    "repvit_m0_9",
    "volo_d1_224",
]


@pytest.fixture(autouse=True)
def quick_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Draw what libraries draw from a truncated normal from a normal one: a tenth of the time, and as random."""

    def drawn(tensor: torch.Tensor, mean: float = 0.0, std: float = 1.0, *_: Any, **__: Any) -> torch.Tensor:
        with torch.no_grad():
            return tensor.normal_(mean, std)

    monkeypatch.setattr(torch.nn.init, "trunc_normal_", drawn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def found(network: str, size: int, options: dict[str, Any]) -> dict[str, str]:
    """Return what does not hold of a network with random weights."""
    spec = {"module": "named", "network": network, "options": options}
    made = named.build(spec, channels=3, size=size, classes=10)
    assert len(made.layers) >= 2, "its stages were not found"
    images = torch.randn((3, 3, size, size), generator=torch.Generator().manual_seed(1))
    return named.mistakes(made, images)


def test_the_list_is_torchvisions() -> None:
    from torchvision import models

    assert models.list_models(module=models) == sorted(TORCHVISION)
    assert len(REASONS) <= 0.1 * len(TORCHVISION)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_classifier_of_torchvision_is_taken_apart(name: str) -> None:
    size, options = SIZES.get(name, (64, {}))
    assert list(found(f"torchvision:{name}", size, options)) == ([REASONS[name]] if name in REASONS else [])


@pytest.mark.parametrize("name", [*TIMM, *TIMM_SIZED])
def test_a_model_of_timm_is_taken_apart(name: str) -> None:
    pytest.importorskip("timm", reason="timm is optional: envs/timm.txt")
    options = {"img_size": 64} if name in TIMM_SIZED else {}
    assert list(found(f"timm:{name}", 64, options)) == (["head"] if name in TWO_HEADS else [])
