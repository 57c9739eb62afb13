"""Draw figures, claims and page of archives again, with the code of this checkout.

    python workflow/scripts/results.py redraw results/reference/*.tar.gz [snakemake's other options]

Unpacks the archives into results/ and runs the stages after the runs' measures, from the archives' tables and under their
configuration, on a laptop. Nothing is trained, extracted or probed, whatever the code of those stages has become since.
Several archives must be of one experiment: its data sets, networks or seeds, made apart.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ..plan.atlas import judged
from ..plan.configuration import PAPER, load_overlays
from ..plan.startup import FROZEN
from ..runtime.files import read_json
from .archive import MEASURED, unpacked

#: The rules that read the experiment's tables alone; figures that show images are not among them, and stay as they are packed.
DRAWN = ("figure", "training_curves", "claims", "later_claims", "published", "choices", "report")


def overlay(config: dict[str, Any]) -> dict[str, Any]:
    """Return a complete configuration as an overlay of config.yaml: what only the latter has is dropped."""
    paper = load_overlays()
    dropped = {
        key: dict.fromkeys(paper[key].keys() - config[key].keys()) for key in ("datasets", "architectures", "probes")
    }
    return config | {key: config[key] | names for key, names in dropped.items()}


def is_asked_for(rule: str, config: dict[str, Any]) -> bool:
    """Return whether a rule has a part in the experiment: Snakemake makes whatever is forced."""
    return {"later_claims": bool(judged(config)), "choices": bool(config["choices"])}.get(rule, True)


def draw(config: dict[str, Any], given: list[str]) -> int:
    """Run the stages after the measures of an experiment that lies under results/, and return Snakemake's exit status.

    The runs' tables are put together first where that was not packed.
    """
    rules = [name for name in DRAWN if is_asked_for(name, config)]
    rules += [] if Path("results", config["experiment"], MEASURED).is_file() else ["collect"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{config['experiment']}.yaml")
        file.write_text(yaml.safe_dump(overlay(config), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", str(file)]
        command += ["--snakefile", str(PAPER.with_name("Snakefile")), "--rerun-triggers", "mtime"]
        command += ["--allowed-rules", "all", *rules, "--forcerun", *rules]
        return subprocess.run([*command, *given]).returncode


def main(command: str, words: list[str]) -> int:
    """Unpack archives and draw what they show."""
    parser = argparse.ArgumentParser(
        prog=f"results.py {command}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path, nargs="+", help="the archives, .tar.gz, from pack")
    args, given = parser.parse_known_args(words)
    experiment, count = unpacked(args.archives, whole=True)
    print(f"{count} files unpacked, every digest fits")
    return draw(read_json(experiment / FROZEN)["config"], given)
