"""What the later claims are judged on: the paper's study, and the tables of the measures beside the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..measures.bootstrap import draw_counts
from .effects import Run, TooSmall, Undecided
from .study import Study


@dataclass(frozen=True)
class LaterStudy(Study):
    """A study with the tables of `atlas/` beside those of the measures.

    Parameters
    ----------
    examples, rewind: `measures/examples.parquet` and `rewind.parquet`, data frames; None where they are not measured.
    bootstrap: {"replicates", "seed"} as for the measures: a split of one size has the same draws, so that differences are paired.
    """

    examples: Any = None
    rewind: Any = None
    bootstrap: Any = None

    def _rows(self, table: Any, run: Run, seed: int) -> Any:
        of_run = (table["dataset"] == run.dataset) & (table["architecture"] == run.architecture)
        return table[of_run & (table["labels"] == run.labels) & (table["seed"] == seed)]

    def rewound(self, run: Run, seed: int, layer: str) -> tuple[list[int], np.ndarray]:
        """Return the steps to which layers of a run were set back, and the accuracy on relabelled train images, (S, 1 + B).

        Raises `Undecided` if that was not measured, `TooSmall` if no image is relabelled or the network has no such layers.
        """
        if self.rewind is None:
            raise Undecided("not measured: switch on measures.rewind")
        rows = self._rows(self.rewind, run, seed)
        if rows.empty:
            raise Undecided(f"{run} seed {seed} was not rewound")
        rows = rows[rows["layer"] == layer].dropna(subset=["relabelled"]).sort_values("step")
        if rows.empty:
            raise TooSmall(f"{run} seed {seed} has no relabelled images or no stages")
        return rows["step"].tolist(), np.column_stack([rows["relabelled"], np.vstack(rows["relabelled_replicates"])])

    def images(self, run: Run, seed: int, split: str) -> Any:
        """Return the rows of a run's images, a data frame; raise `Undecided` if they were not measured, `TooSmall` at one layer."""
        if self.examples is None:
            raise Undecided("not measured: switch on measures.examples")
        rows = self._rows(self.examples, run, seed)
        rows = rows[rows["split"] == split]
        if rows.empty:
            raise Undecided(f"{run} seed {seed} has no images measured")
        if rows["layers"].iloc[0] < 3:
            raise TooSmall(f"{run} seed {seed} was probed at fewer than three layers")
        return rows

    def mean_depth(self, run: Run, seed: int, split: str, those: np.ndarray | None = None) -> np.ndarray:
        """Return the mean depth of a run's images, or of `those` (bool), with its replicates, (1 + B,)."""
        depth = self.images(run, seed, split)["depth"].to_numpy()
        chosen = np.ones(len(depth)) if those is None else those.astype(float)
        draws = draw_counts(len(depth), self.bootstrap["replicates"], seed=self.bootstrap["seed"], split=split)
        weights = np.vstack([np.ones((1, len(depth))), draws]) * chosen
        # A replicate that drew none of them has the mean of all.
        drawn = weights.sum(axis=1)
        return np.divide(
            weights @ depth, drawn, out=np.full(len(drawn), depth @ chosen / chosen.sum()), where=drawn > 0
        )
