"""Claims 10 to 12: what later work says of the paper's question. They are not the paper's, and are not counted among its nine.

Rules and thresholds were fixed before any run on the paper's data sets was judged; docs/claims.md has the reasons.
"""

from __future__ import annotations

from typing import Any

from .depth import random_labels_deeper, wrong_answers_deeper
from .later_study import LaterStudy
from .paper_claims import Claim, judge_one
from .rewinding import last_stage_holds_memorization

LATER = (
    Claim(
        10,
        "Random labels lie deeper",
        "Later work (arXiv 2106.09647): examples with random labels are predicted in deeper layers than those with true ones.",
        "The mean prediction depth of the training images, as a share of the probed layers, is more than {deeper} larger after "
        "training with random labels than with true ones. Within the run with random labels, images that drew another label "
        "than their own against those that drew it are reported and decide nothing.",
        random_labels_deeper,  # type: ignore[arg-type]
    ),
    Claim(
        11,
        "Wrong answers lie deeper",
        "Later work (arXiv 2106.09647): wrong answers to test images are made in deeper layers than right ones.",
        "With true labels the mean prediction depth of the test images that the network gets wrong, as a share of the probed "
        "layers, is more than {deeper} larger than that of those that it gets right.",
        wrong_answers_deeper,  # type: ignore[arg-type]
    ),
    Claim(
        12,
        "The last stage holds memorization",
        "Later work (arXiv 2307.09542) finds that it does not: if memorization sat in the last stage, setting that stage alone back to "
        "an earlier step would remove it. Against claim 4.",
        "With random labels, when the last stage alone is set back to the last evaluation before half was memorized, the accuracy on "
        "relabelled train images falls by more than {removed} of what it falls by when the whole network is set back to it. The same "
        "for all layers before the last stage is reported and decides nothing.",
        last_stage_holds_memorization,  # type: ignore[arg-type]
    ),
)


def judge(study: LaterStudy) -> list[dict[str, Any]]:
    """Return every later claim with its effects and its verdict, as plain values."""
    return [judge_one(claim, study) for claim in LATER]
