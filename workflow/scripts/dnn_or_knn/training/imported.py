"""Weights that were trained elsewhere, taken in as a training of this project would have left them.

No file is executed: state dicts are read with ``weights_only=True`` or from safetensors.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import numerics
from ..data.store import load_labels, load_store
from ..networks.build import create
from ..networks.input import standardize
from ..runtime import files, results
from ..runtime.errors import UserError
from ..runtime.progress import log
from .history import history_text
from .run import checkpoint_name, to_bytes

#: Keys under which programs put a state dict, and what wrappers put before each of its names.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
PREFIXES = ("module.", "_orig_mod.", "model.")
#: Images that the network's mathematics are checked on.
SHOWN = 4


def run(args: argparse.Namespace) -> None:
    """Write checkpoints, an empty history and, last, the manifest; see `import_weights.py` for the arguments."""
    spec, (store, labels) = args.spec, (load_store(args.store), load_labels(args.labels))
    network = create(spec["network"], channels=store.channels, size=store.size, classes=labels.classes)
    images = torch.from_numpy(store.train_images[:SHOWN].copy())
    folder, listed, sources = args.output.with_name("checkpoints"), {}, {}
    steps = sorted(map(int, spec["weights"]))
    with files.atomic(folder) as temporary:
        temporary.mkdir()
        for step in steps:
            path = Path(spec["weights"][str(step)])
            fill(network, read(path), path)
            check(network, images, path)
            weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
            (temporary / checkpoint_name(step)).write_bytes(to_bytes(weights, step))
            sources[str(step)] = {"file": path.name, "sha256": files.sha256(path)}
    listed = {f"checkpoints/{checkpoint_name(step)}": None for step in steps}
    files.write_text(args.output.with_name("history.csv"), history_text([], {}))
    facts = {
        "steps": steps[-1],
        "checkpoints": steps,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "classes": network.classifier.out_features,  # type: ignore[union-attr]
        "probe_points": [point._asdict() for point in network.probe_points],  # type: ignore[union-attr]
        "final_loss": None,
        "imported": sources,
    }
    made = files.listing(args.output.parent, [*listed, "history.csv"])
    results.finish(args, facts, made, inputs=[args.store, args.labels])


def read(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a file, without its wrappers.

    Raises
    ------
    UserError: the file is missing or damaged, holds no weights, or would run code when it is read.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; correct the subject's checkpoints")
    try:
        if path.suffix == ".safetensors":
            content = importlib.import_module("safetensors.torch").load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise UserError(f"{path} needs safetensors, which is not installed; pip install -r envs/timm.txt") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is a pickle that would run code when it is read, and was not read; save the network's state_dict() alone"
        ) from error
    except Exception as error:  # safetensors' own errors, torch's
        if numerics.is_out_of_memory(error):
            raise
        raise UserError(f"{path} holds no weights that can be read ({' '.join(str(error).split())[:150]})") from error
    return unwrapped(content, path)


def unwrapped(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict within the usual wrappers."""
    while isinstance(content, Mapping):
        within = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if within is None:
            break
        content = content[within]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise UserError(f"{path} holds no state dict, a mapping of names to tensors; save the network's state_dict()")
    return dict(content)


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load a state dict into the network, or into the one that it wraps; names, but for usual prefixes, and shapes have to be the same."""
    target: Any = getattr(network, "model", network)
    wanted = target.state_dict()
    while wanted.keys().isdisjoint(state) and (prefix := next((p for p in PREFIXES if _all(state, p)), None)):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - state.keys() - optional)
    unknown = sorted(state.keys() - wanted.keys())
    shaped = sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape)
    differ = [
        *([f"it lacks {_some(missing)}"] if missing else []),
        *([f"the network has no {_some(unknown)}"] if unknown else []),
        *(f"'{n}' is {tuple(state[n].shape)}, not {tuple(wanted[n].shape)}" for n in shaped[:2]),
    ]
    if differ:
        raise UserError(
            f"{path} holds the weights of another network: {'; '.join(differ)}; name the network that was trained"
        )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{path}: '{name}' holds values that are not finite; the training diverged there, leave this step out"
            )
    target.load_state_dict(state, strict=False)


def check(network: nn.Module, images: torch.Tensor, path: Path) -> None:
    """Refuse a network of a library, or of one's own, whose features depend on the batch; say so if its head is not linear."""
    if not hasattr(network, "model"):
        return
    named = importlib.import_module(type(network).__module__)
    prepare = getattr(network, "standardize", standardize)
    found = named.mistakes(network, prepare(images, torch.float32))
    if "batch" in found:
        raise UserError(f"{path}: {found['batch']}")
    for said in found.values():
        log.warning("%s", said)


def _all(state: Mapping[str, Any], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in state)


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
