"""Step by step and layer by layer: the shape of a layer's features, of the train images alone.

Read are the features, which this is one more reader of before they go, the logits, the weights of the last layer, and the two
nearest distances that the k-NN probe keeps. h are the features (N, d) in float64, y the labels that the network is trained with;
classes are those that occur, C of them: one without members has no mean and takes no part.

- `intrinsic_dimension`: TwoNN (Facco et al. 2017, as Ansuini et al., arXiv 1905.12784, use it). μ is the distance of the
  second neighbour over that of the first; through the μ below their 90 % quantile the line −log(1 − F(μ)) = d log μ is
  fitted, F being the share of points whose μ is at most this; its slope d is the dimension. Points that have a copy (first distance
  0) are left out. Missing: fewer than 3 points are left, all μ are 1, or no k-NN probe keeps plain L2 distances.
- Neural collapse (Papyan, Han and Donoho, arXiv 2008.08186), with class means μ_c, their mean μ_G and M the rows μ_c − μ_G:
  `nc1` = Tr(Σ_W Σ_B⁺) / C, Σ_W the mean over images of (h − μ_c)(h − μ_c)ᵀ, Σ_B = MᵀM / C; `nc2_norms`, the standard deviation of
  |M_c| over their mean; `nc2_angles`, the standard deviation of the cosines of two classes; `nc2_simplex`, the mean of
  |cos + 1/(C − 1)|; `nc3` = |W/|W| − M/|M||² in Frobenius norms, W the last layer's weights, at the embedding alone and in the
  paper's networks (those of libraries keep them elsewhere); `nc4`, the share
  of images to whose nearest class mean (L2, ties to the lowest class) the network's answer does not go. All are 0 at collapse.
  Theirs are for classes of one size, where their global mean is μ_G. Missing but for `nc4`: one class, or class means that coincide.
- `cka`: linear CKA (Kornblith et al. 2019) with each layer probed at this step, in the network's order, this one included;
  `cka_next`, `cka_embedding`: with the next of them, and with the embedding. Missing: a layer whose features are constant, or
  that has no next. Where hidden layers are probed, the embedding's row knows of itself alone: theirs have the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..measures.formulas import predicted
from .common import Columns, Part, by_rows
from .weights import read_array

#: Share of the points, those of the smallest μ, that the line of TwoNN goes through.
KEPT = 0.9


def measure(part: Part) -> Columns:
    """Return one row per step and layer of the specification's first shard; see `rows`."""
    return by_rows(rows(part))


def rows(part: Part) -> Iterator[dict[str, Any]]:
    """Yield one row per step and layer of a shard.

    The specification has ``shards``: first the one that is measured, then, after a shard of hidden layers, that of the embedding
    at the same step; and ``knn``, the probe that keeps plain L2 distances, or None.
    """
    shard, *others = part.spec["shards"]
    labels = part.label_set.labels
    for step in shard["steps"]:
        places = {layer: s["name"] for s in (shard, *others) for layer in part.layers(s["name"])}
        similar = cka_matrix([part.feature(place, step, layer) for layer, place in places.items()])
        answer = predicted(part.logits(step, "train"))
        for position, layer in enumerate(part.layers(shard["name"])):
            features = part.feature(shard["name"], step, layer)
            weights = None
            if layer == "embedding":
                weights = read_array(part.checkpoint(step), "classifier.weight")
            distances = np.empty((0, 2))
            if part.spec["knn"]:
                distances = part.probe_array(part.spec["knn"], shard["name"], step, layer, "train_distances")
            yield {
                "step": step,
                "layer": layer,
                "dimensions": features.shape[1],
                "intrinsic_dimension": two_nn(distances),
                **collapse(features, labels, answer, weights),
                "cka_next": similar[position, position + 1] if position + 1 < len(places) else np.nan,
                "cka_embedding": similar[position, -1] if "embedding" in places else np.nan,
                "cka": similar[position],
            }


def two_nn(distances: np.ndarray) -> float:
    """Return the intrinsic dimension by TwoNN, NaN where it is not defined.

    Parameters
    ----------
    distances: (N, 2 or more) of each point's neighbours, ascending, the point itself left out.
    """
    if distances.shape[1] < 2:
        return np.nan
    first, second = distances[distances[:, 0] > 0, :2].T
    logarithm = np.sort(np.log(second / first))[: int(len(first) * KEPT)]
    if len(first) < 3 or not logarithm.any():
        return np.nan
    share = np.arange(1, len(logarithm) + 1) / len(first)
    return float(logarithm @ -np.log1p(-share) / (logarithm @ logarithm))


def collapse(
    features: np.ndarray, labels: np.ndarray, answer: np.ndarray, weights: np.ndarray | None
) -> dict[str, float]:
    """Return NC1 to NC4 of features (N, d); see the module's definitions.

    Parameters
    ----------
    labels, answer: (N,) what the network is trained with, and what it answers.
    weights: the last layer's (classes, d), None at a hidden layer.
    """
    h = features.astype(np.float64)
    present, member = np.unique(labels, return_inverse=True)
    means = np.stack([h[member == place].mean(axis=0) for place in range(len(present))])
    squared = (means**2).sum(axis=1) - 2 * h @ means.T
    found = dict.fromkeys(("nc1", "nc2_norms", "nc2_angles", "nc2_simplex", "nc3"), np.nan)
    found["nc4"] = float((present[squared.argmin(axis=1)] != answer).mean())
    centred = means - means.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=1))
    scale = np.abs(means).max()
    if len(present) < 2 or norms.min() <= 1e-12 * scale:
        return found
    found["nc1"] = _within_over_between(h - means[member], centred)
    found["nc2_norms"] = float(norms.std() / norms.mean())
    cosines = (centred @ centred.T / np.outer(norms, norms))[~np.eye(len(present), dtype=bool)]
    found["nc2_angles"] = float(cosines.std())
    found["nc2_simplex"] = float(np.abs(cosines + 1 / (len(present) - 1)).mean())
    if weights is not None and weights.any():
        w = weights[present].astype(np.float64)
        found["nc3"] = float(((w / np.linalg.norm(w) - centred / np.linalg.norm(centred)) ** 2).sum())
    return found


def _within_over_between(deviations: np.ndarray, centred: np.ndarray) -> float:
    """Return Tr(Σ_W Σ_B⁺) / C from deviations from the class means (N, d) and centred class means (C, d).

    With the singular values s and right vectors v of the class means Σ_B⁺ is the sum of C v vᵀ / s²: no matrix (d, d) is made.
    """
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    kept = singular > singular[0] * max(centred.shape) * np.finfo(np.float64).eps
    kept[len(centred) - 1 :] = False  # their mean is 0: at most C − 1 directions, and rounding
    along = deviations @ vectors[kept].T
    return float(((along**2).mean(axis=0) / singular[kept] ** 2).sum())


def cka_matrix(layers: list[np.ndarray]) -> np.ndarray:
    """Return the linear CKA of each two layers' features, (L, L), NaN for a constant layer; two layers in float64 at a time."""
    found = np.full((len(layers), len(layers)), np.nan)
    for first in range(len(layers)):
        x = _centred(layers[first])
        for second in range(first, len(layers)):
            y = x if second == first else _centred(layers[second])
            found[first, second] = found[second, first] = np.square(x.T @ y).sum()
    own = np.sqrt(np.diag(found))
    with np.errstate(invalid="ignore", divide="ignore"):
        return found / np.outer(own, own)


def _centred(features: np.ndarray) -> np.ndarray:
    wide = features.astype(np.float64)
    wide -= wide.mean(axis=0)
    # Rounding of a constant is no direction.
    return wide if np.ptp(features, axis=0).any() else np.zeros_like(wide)
