"""One measure of one run, or of one shard of its features, as a job."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from ..features import dumps
from ..runtime import files, results
from . import tables
from .common import Part, load, named


def run(args: argparse.Namespace) -> None:
    """Write the table, and last its manifest; see `measure.py` for the arguments."""
    spec = args.spec
    with contextlib.ExitStack() as stack:
        found = {path.stem: stack.enter_context(opened(args, place)) for place, path in enumerate(args.features)}
        features = {name: folder for name, (folder, _) in found.items()}
        part = Part(spec, args.store, args.labels, args.training, features, args.device)
        columns = named(spec["run"], load(spec["module"])(part))
        made = args.output.with_suffix(".parquet")
        tables.write(made, columns)
        again = any(again for _, again in found.values())
        facts = {"measure": spec["measure"], "run": spec["run"], "rows": len(next(iter(columns.values())))}
        inputs = [args.store, args.labels, args.training, *args.inputs]
        results.finish(args, facts, [made], inputs=inputs, features_extracted_again=again)


def opened(args: argparse.Namespace, place: int) -> contextlib.AbstractContextManager[tuple[Path, bool]]:
    """Return what opens the features of the shard at `place` among those that the job reads; see `dumps.opened`."""
    manifest = args.features[place]
    mine = {
        "features": manifest,
        "extraction": args.extraction[place] if args.extraction else None,
        "reader": args.reader,
        # The shards' features that are made again must not lie in one folder.
        "output": args.output.with_name(f"{args.output.stem}-{manifest.name}"),
    }
    return dumps.opened(argparse.Namespace(**{**vars(args), **mine}), files.read_json(manifest)["files"])
