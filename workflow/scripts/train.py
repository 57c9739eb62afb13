"""Train one network; keep its weights at the evaluation steps.

Writes, beside the manifest, the weights (`checkpoints/step000000.pt` …, `{"model": state_dict, "step": n}`, to be loaded with
`weights_only=True`), the history of loss and accuracy (`history.csv`), and last the manifest. A run that is killed
continues when it is started again with the same specification; SIGTERM saves the state first.
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  network      {"module", and the module's options}
  training     {"steps", "batch_size", "learning_rate", "momentum", "nesterov", "decay_at", "decay_factor", "weight_decay",
               "weight_decay_on", "pad", "flip", "shuffle", "shuffle_buffer", "precision"}; see docs/configuration.md
  seed         of the first weights, the sample order and the augmentation
  checkpoints  steps at which weights are kept; 0 is the network before training
  accuracy_at  steps at which the accuracy on train and test images goes to the history
"""


def main(args: argparse.Namespace) -> None:
    """Train as `args.spec` says, and write checkpoints, history and, last, the manifest."""
    from dnn_or_knn.training import job

    job.train(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        f"{__doc__}\n{EPILOG}",
        store="the data set's store.json",
        labels="the run's labels.json",
        output="the manifest to write, RUN/training.json",
    )
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between two states (default: 60)")
    command_line.add_device(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
