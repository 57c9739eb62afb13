"""torchvision's classifiers, and a model of each of timm's families, with random weights: which pass, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from dnn_or_knn.networks import named

pytestmark = pytest.mark.slow

OPTIONAL = "timm is optional: envs/timm.txt"

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
#: A small model of each of timm's families; those under `TIMM_HEADS` do not pass.
TIMM = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "mobileone_s0",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cspresnet50",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "efficientnet_lite0",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_a",
    "hgnet": "hgnet_tiny",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "maxvit_nano_rw_256",
    "metaformer": "poolformer_s12",
    "mlp_mixer": "mixer_s32_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "nfnet_f0",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m0_9",
    "res2net": "res2net50_26w_4s",
    "resnest": "resnest14d",
    "resnet": "resnet18",
    "resnetv2": "resnetv2_50",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s1",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_srelpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}
#: Logits of more than one head, and so no function W · embedding + b of any one's input.
TIMM_HEADS = {
    "crossvit_tiny_240": "two branches, averaged",
    "efficientformer_l1": "a second head, which distillation trained, averaged",
    "efficientformerv2_s0": "the same",
    "efficientvim_m1": "four stages, weighted",
    "levit_128s": "a second head, which distillation trained, averaged",
    "repvit_m0_9": "the same",
    "swiftformer_xs": "the same",
    "volo_d1_224": "the largest logits of its tokens, added",
}
#: What is shown 64 pixels a side if it is told so,
SIXTY_FOUR = [
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "deit_tiny_patch16_224",
    "efficientformerv2_s0",
    "eva02_tiny_patch14_224",
    "gcvit_xxtiny",
    "hiera_tiny_224",
    "levit_128s",
    "maxvit_nano_rw_256",
    "mixer_s32_224",
    "nest_tiny",
    "pit_ti_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_224",
    "swinv2_tiny_window8_256",
    "tnt_s_patch16_224",
    "visformer_tiny",
    "vit_srelpos_small_patch16_224",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vitamin_small_224",
    "volo_d1_224",
]
#: what wants other sizes, and the large ones, of which five blocks are built.
TIMM_SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "deepseek_vit_412m": (56, {"depth": 5}),
    "efficientformer_l1": (224, {}),
    "gemma4_vit_167m": (64, {"depth": 5}),
    "halonet_h1": (256, {}),
    "inception_resnet_v2": (80, {}),
    "inception_v3": (80, {}),
    "inception_v4": (80, {}),
    "naflexvit_base_patch16_gap": (64, {"depth": 5}),
    "qwen3_vit_88m": (64, {"depth": 5}),
    "samvit_base_patch16_224": (64, {"depth": 5}),
} | {name: (64, {"img_size": 64}) for name in SIXTY_FOUR}


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


def test_the_families_are_timms() -> None:
    timm = pytest.importorskip("timm", reason=OPTIONAL)
    assert timm.list_modules() == sorted(TIMM)
    for family, name in TIMM.items():
        assert name in timm.list_models(module=family)
    assert len(TIMM_HEADS) <= 0.1 * len(TIMM)


@pytest.mark.parametrize("name", TIMM.values())
def test_a_model_of_timm_is_taken_apart(name: str) -> None:
    pytest.importorskip("timm", reason=OPTIONAL)
    size, options = TIMM_SIZES.get(name, (64, {}))
    assert list(found(f"timm:{name}", size, options)) == (["head"] if name in TIMM_HEADS else [])
