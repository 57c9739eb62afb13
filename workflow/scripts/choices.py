"""Judge the paper's claims once for every choice that the paper left open: what would have come out otherwise?"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification:
  choices        [{"name", "roles": {"knn": model, "svm": model, "lr": model}, "divergence": "d_kl" or "d_kl_column"}, ...];
                 the first is called "as configured", and the others are compared with it
  claims         {threshold: value}: the configuration's block, complete (docs/claims.md)
  style          of the figure (optional)
  architectures  from shallow to deep
  datasets       in the order of the figures
  labels         {"true", "random", "random_layers", "overfit"}: the label set of each kind of run
  architecture   the network of figures 4 to 7
"""


def main(args: argparse.Namespace) -> None:
    """Write choices.pdf, .png, .csv and .md, and last choices.json with every verdict."""
    from dnn_or_knn.claims import choices, choices_figure, choices_words, effects
    from dnn_or_knn.figures import style
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results

    spec = args.spec
    wanted = choices_words.checked(spec)
    look = style.style(spec)
    results.read(args.measures, [tables.MEASURES, tables.REPLICATES, tables.RUNS])
    judged = choices_words.judge(effects.read(args.measures.parent), spec, wanted)
    shown = choices.panels(judged)
    prefix = args.output.with_suffix("")
    with style.applied(look):
        drawn = choices_figure.draw(shown, look)
        made = style.save(drawn, prefix, choices_words.table(shown), dpi=look["dpi"])
    text = prefix.with_suffix(".md")
    files.write_text(text, choices_words.markdown(judged))
    flips = choices.changes(judged)
    facts = {
        "choices": [
            {"name": name, **what, "verdicts": choices_words.verdicts(judged[name]), "changes": flips.get(name, [])}
            for name, what in wanted.items()
        ],
        "claims": [{"claim": panel.number, "title": panel.title, "shown": panel.part} for panel in shown],
        "caption": choices_words.caption(judged, spec["claims"]),
        "alt": choices_words.alt(judged),
    }
    for name, found in flips.items():
        command_line.log.info("%s: %s", name, "; ".join(found) or "no verdict changes")
    results.finish(args, facts, [*made, text], inputs=[args.measures])


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        measures="the experiment's measures.json; its tables lie beside it",
        output="the manifest to write, choices.json; table and figure beside it",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
