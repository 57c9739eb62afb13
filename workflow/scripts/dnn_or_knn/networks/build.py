"""How a network is built by name.

A module `networks/<name>.py` has `build(spec, *, channels, size, classes) -> nn.Module`. The network that it returns
declares its own `probe_points` and has

- `forward(x)`: logits (N, classes);
- `embed(x)`: the embedding (N, d), the input of `classifier`, the last fully connected layer;
- `activations(x)`: the pooled features (N, dimensions) at every probe point but `input`, by name, in order;
- `initialize(generator)`: draws all weights;
- where it wants its input otherwise, `standardize(images, dtype)`, in the place of the function in `networks/input.py`.

`x` is a batch of standardized images (N, channels, size, size), see `networks/input.py`. Logits, embeddings and pooled
features are computed in float32 (float64 for a float64 network) even under bfloat16 autocast.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..runtime.errors import UserError


def create(
    spec: Mapping[str, Any],
    *,
    channels: int,
    size: int,
    classes: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build a network on the CPU with weights that depend on `seed` and the specification alone.

    The weights are drawn in float32 by a CPU generator of its own, whatever device and precision they are used in
    later, and the global random state is left as it was.

    Parameters
    ----------
    spec: the `network` part of a job's specification: ``module`` and that module's options.
    channels, size, classes: geometry of the data set's images, (channels, size, size), and its number of classes.

    Raises
    ------
    UserError: no such module, an unknown option or a bad value.
    """
    name = spec.get("module")
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"network.module is {name!r}; give the name of a module in networks/")
    try:
        module = importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        raise UserError(f"network.module is '{name}', but there is no networks/{name}.py") from error
    with torch.random.fork_rng(devices=[]):  # PyTorch's layers draw default weights when they are made
        network: nn.Module = module.build(spec, channels=channels, size=size, classes=classes)
    network.initialize(torch.Generator().manual_seed(seed))  # type: ignore[operator]
    return network.to(dtype)
