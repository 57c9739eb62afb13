"""Judge the paper's nine claims on an experiment's measures."""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  claims         {threshold: value}: the configuration's block, complete (docs/claims.md)
  architectures  from shallow to deep
  datasets       in the order of the figures
  labels         {"true", "random", "random_layers", "overfit"}: the label set of each kind of run
  architecture   the network of figures 4 to 7
  probes         names of the probes; "knn", "svm" and "lr" are judged
"""


def main(args: argparse.Namespace) -> None:
    """Write claims.pdf, .png, .csv and .md, and last claims.json with every effect and verdict."""
    from dnn_or_knn.claims import effects, paper_claims, written
    from dnn_or_knn.claims.study import ROLES, Study
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results

    spec = args.spec
    results.read(args.measures, [tables.MEASURES, tables.REPLICATES, tables.RUNS])
    study = Study(
        data=effects.read(args.measures.parent),
        architectures=spec["architectures"],
        datasets=spec["datasets"],
        labels=spec["labels"],
        architecture=spec["architecture"],
        probes={name: name for name in ROLES if name in spec["probes"]},
        thresholds=spec["claims"],
    )
    judged = paper_claims.judge(study)
    made = written.write(args.output, judged, "The paper's claims")
    results.finish(args, {"claims": judged}, made, inputs=[args.measures])
    written.tell(judged)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        measures="the experiment's measures.json; its tables lie beside it",
        output="the manifest to write, claims.json; table and figure beside it",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
