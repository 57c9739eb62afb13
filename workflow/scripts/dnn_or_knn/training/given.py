"""Features that were computed elsewhere, in the place of a training: all of them compared, none of them copied yet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..data import arrays, store
from ..runtime import files, results
from ..runtime.errors import UserError
from ..runtime.progress import log
from .history import history_text

#: Layers that the network's diagram knows by name.
NAMED = ("input", "embedding")


def run(args: argparse.Namespace) -> None:
    """Write an empty history and, last, the manifest; see `import_features.py` for the arguments."""
    spec, labels = args.spec, store.load_labels(args.labels)
    truth = {"train": labels.labels, "test": store.load_true_labels(args.store)[1]}
    widths = compared(spec, truth, labels.classes)
    if not spec["logits"]:
        log.warning("%s: no logits are given, so that nothing can be compared with a network's answers", spec["run"])
    files.write_text(args.output.with_name("history.csv"), history_text([], {}))
    facts = {
        "steps": spec["steps"][-1],
        "checkpoints": [],
        "parameters": None,
        "classes": labels.classes,
        "probe_points": [
            {"name": name, "dimensions": widths[name], "stage": place, "kind": name if name in NAMED else "unit"}
            for place, name in enumerate(spec["layers"], "input" not in spec["layers"])
        ],
        "final_loss": None,
        "logits": spec["logits"],
    }
    results.finish(args, facts, files.listing(args.output.parent, ["history.csv"]), inputs=[args.store, args.labels])


def compared(spec: dict[str, Any], truth: dict[str, Any], classes: int) -> dict[str, int]:
    """Return how many features each layer has, after comparing all files with the labels; `UserError` where steps differ."""
    widths: dict[str, int] = {}
    for step in map(str, spec["steps"]):
        for layer, file in spec["given"][step].items():
            logits = classes if spec["logits"] and layer == "embedding" else None
            width = arrays.check(Path(file), truth, logits)
            if widths.setdefault(layer, width) != width:
                raise UserError(
                    f"{file} has {width} features an image, and {layer} had {widths[layer]} at an earlier step; give one layer's features"
                )
    return widths
