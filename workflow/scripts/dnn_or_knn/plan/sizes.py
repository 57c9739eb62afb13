"""How large things are, known without loading or building them: data sets, networks, their probe points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Bytes that no machine here holds.
MOST_BYTES = 10**12
#: Layers beyond which a network is not worth counting.
DEEPEST = 10_000
Network = Mapping[str, Any]
Geometry = Mapping[str, Any]


def train_images(entry: Mapping[str, Any], options: Mapping[str, Any]) -> int | None:
    """Return how many training images a data set has with its options; None where its entry does not say."""
    images = entry.get("images")
    if isinstance(images, int):  # of train and test together
        return images - round(images * options["test_fraction"])
    return images[0] if images else None


def inner(network: Network) -> Network:
    """Return the network within a specification that says how its input is normalized."""
    return network["network"] if network["module"] == "normalized" else network


def probe_points(network: Network) -> list[str] | None:
    """Return the names of a network's probe points, from its input on; None for a module that is not known here."""
    network = inner(network)
    if network["module"] == "mlp":
        return ["input", "embedding"]
    if network["module"] == "lenet":
        return ["input", "conv1", "pool1", "conv2", "pool2", "embedding"]
    if network["module"] == "wrn":
        units = range(1, min(_units(network), DEEPEST) + 1)
        names = [f"unit_{stage}_{position}" for stage in (1, 2, 3) for position in units]
        return ["input", "initial_conv", *names, "embedding"]
    return None


def parameters(network: Network, image: Geometry) -> int | None:
    """Return how many parameters a network has; None for a module that is not known here.

    Parameters
    ----------
    image: the data set's ``channels``, ``size`` (of (channels, size, size) images) and ``classes``.
    """
    channels, size, classes = image["channels"], image["size"], image["classes"]
    network = inner(network)
    if network["module"] == "mlp":
        width = network["width"]
        return (channels * size * size + 1) * width + (width + 1) * classes
    if network["module"] == "lenet":
        width = network["embedding"]
        convolutions = (25 * channels + 1) * 32 + (25 * 32 + 1) * 64
        return convolutions + (64 * (size // 4) ** 2 + 1) * width + (width + 1) * classes
    if network["module"] == "wrn":
        count, inputs = 9 * channels * 16, 16
        for stage, outputs in enumerate(_widths(network)):
            changes = stage > 0 or inputs != outputs  # its resolution or its width
            projection = inputs * outputs if changes and network["shortcut"] == "conv" else 0
            count += _unit(inputs, outputs) + projection + (_units(network) - 1) * _unit(outputs, outputs)
            inputs = outputs
        return count + 2 * inputs + (inputs + 1) * classes
    return None


def activations(network: Network, image: Geometry) -> int:
    """Return how many numbers the convolutions and layers of a network make of one image, which training keeps."""
    pixels = image["size"] ** 2
    network = inner(network)
    if network["module"] == "mlp":
        return int(network["width"])
    if network["module"] == "lenet":
        return 32 * pixels + 64 * pixels // 4 + int(network["embedding"])
    if network["module"] == "wrn":
        stages = sum(width * pixels // 4**stage for stage, width in enumerate(_widths(network)))
        return 16 * pixels + 2 * _units(network) * stages
    return 0


def training_bytes(network: Network, image: Geometry, batch: int) -> int:
    """Return the bytes that training needs at least: weights, gradients and momenta, and a batch's activations, float32."""
    return 4 * (3 * (parameters(network, image) or 0) + batch * activations(network, image))


def _widths(network: Network) -> list[int]:
    return [16 * 2**stage * network["width"] for stage in range(3)]


def _units(network: Network) -> int:
    return int((network["depth"] - 4) // 6)


def _unit(inputs: int, outputs: int) -> int:
    return 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs * outputs
