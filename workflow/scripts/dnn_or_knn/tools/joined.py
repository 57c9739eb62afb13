"""Put the configurations of several archives of one experiment together: columns or seeds that were made apart.

What a run is must agree; which runs there are may differ, and what there is of any archive is there together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..plan.configuration import load_overlays
from ..plan.runs import create
from ..plan.startup import in_order
from ..runtime.errors import UserError

#: Of which there may be others in each archive: mappings by name, and lists of runs.
PARTS = (*(NAMED := ("datasets", "architectures", "subjects")), "seeds", *(LISTED := ("runs", "more_runs")))
#: How jobs run, where data lie and what stays of results, which no number depends on.
HOW = ("data", "jobs", "device", "shards", "keep.features", "keep.probabilities")

Config = dict[str, Any]


def joined(configs: Mapping[Path, Config]) -> Config:
    """Return one configuration for the runs of all archives, given each archive's complete one; the first says how jobs run.

    Raises
    ------
    UserError: naming the key in which two archives differ.
    """
    # Completed: an earlier version's lacks the keys that came since.
    (first, whole), *others = ((archive, create(config).config) for archive, config in configs.items())
    for archive, config in others:
        for key in sorted((whole.keys() | config.keys()) - {*PARTS}):
            _agree(key, whole.get(key), config.get(key), first, archive)
        for key in [key for key in NAMED if key in whole or key in config]:
            ours, theirs = whole.get(key, {}), config.get(key, {})
            for name in ours.keys() & theirs.keys():
                _agree(f"{key}.{name}", ours[name], theirs[name], first, archive)
            whole[key] = ours | theirs
        whole["seeds"] = sorted({*whole["seeds"], *config["seeds"]})
        whole |= {key: _runs([*whole[key], *config[key]]) for key in LISTED}
    paper = load_overlays()
    return whole | {key: in_order(whole[key], paper[key]) for key in ("datasets", "architectures")}


def _agree(key: str, one: Any, other: Any, first: Path, archive: Path) -> None:
    """Raise `UserError` if two archives' values of a key differ and count, naming the innermost key that does."""
    if one == other or key in HOW:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted(one.keys() | other.keys()):
            _agree(f"{key}.{name}", one.get(name), other.get(name), first, archive)
        return
    raise UserError(
        f"{archive} has {key}: {other!r}, but {first} has {one!r}; archives are put together where they differ in "
        "data sets, networks, runs and seeds alone"
    )


def _runs(entries: list[Config]) -> list[Config]:
    """Return each run once, by data set and network, with all seeds that any archive has of it."""
    made: list[Config] = []
    for entry in entries:
        for dataset in entry["datasets"]:
            for architecture in entry["architectures"]:
                one = entry | {"datasets": [dataset], "architectures": [architecture]}
                same = next((run for run in made if run | {"seeds": one["seeds"]} == one), None)
                if same is None:
                    made.append(one)
                else:
                    same["seeds"] = sorted({*same["seeds"], *one["seeds"]})
    return made
