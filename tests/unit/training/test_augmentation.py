"""Standardization and augmentation against slow formulas, and the random numbers behind them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dnn_or_knn.networks.input import standardize
from dnn_or_knn.training import augmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from simulated_cuda import simulated

PIXELS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.just(5), st.just(5)),
    elements=st.integers(0, 255),
)


@settings(deadline=None, max_examples=60)
@given(PIXELS)
def test_standardization_is_the_definition(pixels):
    made = standardize(torch.from_numpy(pixels), torch.float64).numpy()
    single = standardize(torch.from_numpy(pixels))
    assert single.dtype == torch.float32
    for image, result, rounded in zip(pixels, made, single.numpy(), strict=True):
        values = [float(v) for v in image.ravel()]
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
        divisor = max(deviation, 1 / math.sqrt(len(values)))
        expected = (image - mean) / divisor
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)
        # A mean of up to 255 is rounded by 2^-17 and more in float32, and the difference from it divided.
        np.testing.assert_allclose(rounded, expected, rtol=1e-5, atol=2**-14 / divisor)


def test_standardization_keeps_the_memory_format():
    pixels = torch.randint(0, 256, (4, 3, 6, 5), dtype=torch.uint8)
    plain = standardize(pixels)
    last = standardize(pixels.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain)
    torch.testing.assert_close(standardize(pixels.permute(0, 1, 3, 2)), plain.permute(0, 1, 3, 2))


def test_flat_images_become_zero_and_nearly_flat_ones_stay_small():
    pixels = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    pixels[1, 0, 3, 3] = 201  # deviation sqrt(63) / 64 is just below the floor of 1 / 8
    made = standardize(pixels)
    assert not made[0].any()
    assert made[1].max().item() == pytest.approx((63 / 64) * 8, rel=1e-5)


def slow_augment(image: np.ndarray, top: int, left: int, flip: bool, pad: int) -> np.ndarray:
    channels, height, width = image.shape
    result = np.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + top - pad, (width - 1 - x if flip else x) + left - pad
                if 0 <= from_y < height and 0 <= from_x < width:
                    result[c, y, x] = image[c, from_y, from_x]
    return result


@settings(deadline=None, max_examples=60)
@given(PIXELS, st.integers(0, 3), st.booleans(), st.data())
def test_augmentation_is_pad_crop_and_mirror(pixels, pad, mirror, data):
    count = len(pixels)
    places = st.integers(0, 2 * pad)
    offsets = data.draw(st.lists(st.tuples(places, places), min_size=count, max_size=count))
    flips = data.draw(st.lists(st.booleans(), min_size=count, max_size=count)) if mirror else [False] * count
    made = augmentation.augment(
        torch.from_numpy(pixels), torch.tensor(offsets), torch.tensor(flips) if mirror else None, pad=pad
    )
    assert made.dtype == torch.uint8
    for image, result, (top, left), flip in zip(pixels, made.numpy(), offsets, flips, strict=True):
        np.testing.assert_array_equal(result, slow_augment(image, top, left, flip, pad))


def test_augmentation_does_not_care_about_memory_format():
    pixels = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    offsets, flips = augmentation.draws(0, 0, 5, pad=2)
    strided = pixels.contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        augmentation.augment(strided, offsets, flips, pad=2), augmentation.augment(pixels, offsets, flips, pad=2)
    )


def test_a_simulated_gpu_draws_and_augments_the_same_and_is_not_waited_for():
    pixels = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)

    def everything(images_: torch.Tensor, step: torch.Tensor) -> list[torch.Tensor]:
        offsets, flips = augmentation.draws(9, step, 5, pad=2, device=images_.device)
        made = augmentation.augment(images_, offsets, flips, pad=2)
        return [offsets, flips, made, standardize(made.contiguous(memory_format=torch.channels_last))]

    here = everything(pixels, torch.tensor([70]))
    with simulated() as device:
        arguments = pixels.to("cuda"), torch.tensor([70]).to("cuda")
        device.waits.clear()
        there = everything(*arguments)
        assert not device.waits
        assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))


def splitmix(x: int) -> int:
    """SplitMix64's finalizer as published, on Python integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 4))
def test_draws_are_the_hash_of_seed_step_and_position(seed, step, size, pad):
    offsets, flips = augmentation.draws(seed, step, size, pad=pad)
    key = splitmix((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for position in range(size):
        counter = splitmix((step * size + position + 1) * 0x9E3779B97F4A7C15 % 2**64)
        bits = splitmix((counter + key) % 2**64)
        top, left = (bits >> 34) * (2 * pad + 1) >> 30, (bits >> 4) % 2**30 * (2 * pad + 1) >> 30
        assert offsets[position].tolist() == [top, left]
        assert flips[position].item() == bool(bits & 1)


def test_a_step_counter_on_the_device_draws_the_same():
    for step in (0, 7, 59_999):
        by_number, by_tensor = (augmentation.draws(5, s, 16, pad=2) for s in (step, torch.tensor(step)))
        assert all(torch.equal(a, b) for a, b in zip(by_number, by_tensor, strict=True))


def test_draws_are_uniform_and_independent():
    drawn = [augmentation.draws(3, step, 200, pad=2) for step in range(300)]
    offsets, flips = torch.cat([d[0] for d in drawn]), torch.cat([d[1] for d in drawn]).long()
    cells = torch.bincount(offsets[:, 0] * 10 + offsets[:, 1] * 2 + flips, minlength=50).double()
    expected = len(flips) / 50
    chi_square = ((cells - expected) ** 2 / expected).sum().item()
    assert chi_square < 85.4  # 49 degrees of freedom, p = 0.001
    # Neighbouring steps and images do not follow each other: correlations of 60,000 pairs.
    for other in (flips.roll(1), flips.roll(200)):
        assert abs(np.corrcoef(flips.numpy(), other.numpy())[0, 1]) < 4 / math.sqrt(len(flips))


def test_seeds_and_steps_draw_differently():
    reference = augmentation.draws(0, 0, 64, pad=2)[0]
    assert not torch.equal(reference, augmentation.draws(0, 1, 64, pad=2)[0])
    assert not torch.equal(reference, augmentation.draws(1, 0, 64, pad=2)[0])
