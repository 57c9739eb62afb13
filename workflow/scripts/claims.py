"""Judge the paper's nine claims on an experiment's measures."""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification:
  claims         {threshold: value}: the configuration's block, complete (docs/claims.md)
  architectures  from shallow to deep
  datasets       in the order of the figures
  labels         {"true", "random", "random_layers", "overfit"}: the label set of each kind of run
  architecture   the network of figures 4 to 7
  probes         names of the probes; "knn", "svm" and "lr" are judged
"""
COLUMNS = [
    *("claim", "part", "cell", "value", "low", "high", "relation", "threshold", "unit", "verdict", "decides", "seeds"),
    "note",
]


def main(args: argparse.Namespace) -> None:
    """Write claims.pdf, .png, .csv and .md, and last claims.json with every effect and verdict."""
    import pandas as pd
    from dnn_or_knn.claims import effects, paper_claims, verdicts
    from dnn_or_knn.claims.figure import draw
    from dnn_or_knn.claims.study import ROLES, Study
    from dnn_or_knn.figures import style
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
    table = pd.DataFrame([effect for claim in judged for effect in claim["effects"]], columns=COLUMNS)
    prefix = args.output.with_suffix("")
    look = style.style({})
    with style.applied(look):
        made = style.save(draw(judged, look), prefix, table, dpi=look["dpi"])
    text = prefix.with_suffix(".md")
    files.write_text(text, verdicts.markdown(judged))
    results.finish(args, {"claims": judged}, [*made, text], inputs=[args.measures])
    for claim in judged:
        told = claim["claim"], verdicts.verdict(claim), claim["title"], claim["decided"]
        command_line.log.info("claim %d: %s - %s: %s", *told)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        measures="the experiment's measures.json; its tables lie beside it",
        output="the manifest to write, claims.json; table and figure beside it",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
