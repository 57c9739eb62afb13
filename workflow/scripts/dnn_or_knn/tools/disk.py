"""Print what an experiment will need on disk: weights, features, what each probe keeps; and what lies there now of what passes through.

    python workflow/scripts/results.py disk [--configfile config/demo.yaml] [--release]

With --release the features that lie there go: a probe that needs them extracts them again from the weights. So do probabilities,
where the configuration keeps them until they are measured, and they are.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ..data import arrays
from ..features import dumps
from ..plan import datasets, probing, runs
from ..plan.configuration import load_overlays
from ..plan.specifications import Jobs
from ..plan.staleness import stale
from ..runtime.errors import UserError
from ..runtime.files import read_json, remove

#: Training and test images of the data sets whose size is known before they are prepared.
IMAGES = {
    "digits": (1438, 359),
    "fashion14": (2000, 1000),
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
}
FLOAT = 4


def images_of(run: runs.Run, results: Path, entry: dict[str, Any]) -> tuple[int, int]:
    """Return how many train and test images a run's data set has; `UserError` for one's own that is not prepared yet."""
    if run.dataset in IMAGES or "images" in entry:
        train, test = IMAGES.get(run.dataset) or entry["images"]
        return train, test
    store = results / run.dataset / "store" / "store.json"
    if not store.is_file():
        raise UserError(f"how many images {run.dataset} has is known once {store} is made; make it with snakemake")
    facts = read_json(store)
    return facts["train"], facts["test"]


def needs(run: runs.Run, probes: dict[str, Any], entry: dict[str, Any], images: tuple[int, int]) -> Counter[str]:
    """Return the bytes that one run writes, by kind, from the network built without memory for its weights."""
    train, test = images
    train = min(train, run.subset["count"]) if run.subset else train
    if run.given is not None:
        return given_needs(run, probes, entry["classes"], train + test)
    import torch

    from ..networks.build import create

    with torch.device("cpu" if "networks/named" in runs.modules(run.network) else "meta"):
        network = create(run.network, **{key: entry[key] for key in ("channels", "size", "classes")})
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    points: Any = network.probe_points
    dimensions = [point.dimensions for point in points]
    pictures, count, classes = train + test, len(run.checkpoints), entry["classes"]
    evaluations = count + (len(dimensions) - 1 if run.layers == "all" else 0)
    kept = pictures * kept_of_one(probes, classes)
    return Counter(
        {
            "weights": count * weights,
            "features": pictures
            * FLOAT
            * (count * dimensions[-1] + (sum(dimensions[:-1]) if run.layers == "all" else 0)),
            "logits": pictures * FLOAT * classes * count,
            "probes": evaluations * kept,
        }
    )


def kept_of_one(probes: dict[str, Any], classes: int) -> int:
    """Return the bytes that all probes keep of one image at one evaluation."""
    return sum(o["k_max"] * 12 if o["kind"] == "knn" else classes * FLOAT for o in probes.values())


def share_of(some: Collection[str], probes: dict[str, Any], classes: int) -> float:
    """Return the share that some probes have in what all probes write."""
    return kept_of_one({name: probes[name] for name in probes if name in some}, classes) / kept_of_one(probes, classes)


def given_needs(run: runs.Run, probes: dict[str, Any], classes: int, pictures: int) -> Counter[str]:
    """Return the bytes that a run of features alone writes; they stay, since there are no weights to extract them from."""
    layers = [Path(file) for files in (run.given or {}).values() for file in files.values()]
    widths = sum(arrays.find(path, "train_features").shape[1] for path in layers)
    return Counter(
        {
            "weights": 0,
            "features": pictures * FLOAT * widths,
            "logits": pictures * FLOAT * classes * len(run.checkpoints) * run.logits,
            "probes": len(layers) * pictures * kept_of_one(probes, classes),
        }
    )


def refuse_while_running() -> None:
    """Raise `UserError` while Snakemake runs here."""
    if any(Path(".snakemake/locks").glob("*")):
        raise UserError(
            "Snakemake is running here, or was killed; wait for it, or take its lock away: snakemake --unlock"
        )


def measured(jobs: Jobs) -> list[Path]:
    """Return the folders of probabilities that lie on disk, but go once they are measured, and are."""
    if not jobs.passing():
        return []
    return probing.measured(jobs, {f"{jobs.results}/{task.manifest}.json" for task, _ in stale(jobs)})


def size_of(folders: Iterable[Path]) -> int:
    """Return the bytes of all files in some folders."""
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def staying(made: runs.Experiment) -> set[Path]:
    """Return the folders of the runs whose features were given, and stay: there are no weights to extract them from."""
    return {Path(made.results) / path for path, run in made.runs.items() if run.given is not None}


def release(made: runs.Experiment) -> None:
    """Remove the features of an experiment, but for those that stay, and the marks of who would have read them."""
    dumps.release_all(Path(made.results), staying(made))


def main(command: str, words: list[str]) -> int:
    """Print what the configured experiment needs, run by run."""
    parser = argparse.ArgumentParser(
        prog=f"results.py {command}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays, as given to snakemake")
    parser.add_argument("--release", action="store_true", help="remove the features that lie on disk")
    args = parser.parse_args(words)
    made = runs.create(load_overlays(*args.configfile))
    results, until_probed = Path(made.results), made.config["keep"]["features"] == "until-probed"
    jobs = Jobs(made)
    passing = jobs.passing()
    if args.release:
        if not until_probed and not passing:
            raise UserError(
                "the configuration has keep.features: all and keep.probabilities: all; set until-probed to release features, "
                "until-measured to release probabilities"
            )
        refuse_while_running()
        if until_probed:
            release(made)
        for folder in measured(jobs):
            remove(folder)
    total: Counter[str] = Counter()
    largest = 0.0
    print(f"{'run':44}" + "".join(f"{kind:>10}" for kind in ("weights", "features", "logits", "probes")) + "   (GB)")
    for path, run in made.runs.items():
        entry = datasets.entry(made.config, run.dataset)
        found = needs(run, made.config["probes"], entry, images_of(run, results, entry))
        total += found
        going = found["probes"] * share_of(passing, made.config["probes"], entry["classes"])
        total["going"] += round(going)
        largest = max(largest, going)
        print(f"{path:44}" + "".join(f"{value / 1e9:10.2f}" for value in found.values()))
    print(f"{'all':44}" + "".join(f"{total[kind] / 1e9:10.2f}" for kind in ("weights", "features", "logits", "probes")))
    there, stay = dumps.there(results), staying(made)
    print(f"Features of {len(there)} shards lie on disk now, {size_of(there) / 1e9:.3f} GB.")
    given = [folder for folder in there if folder.parents[1] in stay]
    if given:
        print(f"Those of {len(given)} were given and stay: there are no weights to extract them from.")
    if until_probed and len(stay) < len(made.runs):
        print("Features are released once probed; `keep.features: all` keeps them.")
    done = measured(jobs)
    if passing:
        print(
            f"Of the probes' {total['probes'] / 1e9:.3f} GB, {total['going'] / 1e9:.3f} of probabilities are released once measured, "
            f"run by run: at most {largest / 1e9:.3f} of one run. `keep.probabilities: all` keeps them."
        )
    if done:
        print(f"Probabilities of {len(done)} shards lie on disk now and are measured, {size_of(done) / 1e9:.3f} GB.")
    waiting = until_probed and len(given) < len(there)
    if waiting or done:
        again = shlex.join(["--configfile", *args.configfile, "--release"] if args.configfile else ["--release"])
        unprobed = " unprobed" if waiting else ""
        print(f"To release them{unprobed}: python workflow/scripts/results.py disk {again}")
    return 0
