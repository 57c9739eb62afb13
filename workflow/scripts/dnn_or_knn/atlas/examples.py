"""Image by image: how deep, how late and how surely a network gets an image right, and who agrees with it.

What is read are the logits of every kept evaluation and, at the last, the k-NN's neighbours at every probed layer and the
probes on the embedding. None of the columns is a memorization score: they are proxies of it, and of one another.

Definitions. y is the label that counts as right (on train the one that the network is trained with, on test the true one),
p_t the network's softmax at evaluation t = 1 … T after step 0, the untrained network, which takes part in nothing here unless it is
the only evaluation.
Answers are the largest entry, ties going to the lowest class, of logits as of votes.

- Prediction depth (Baldock, Maennel and Neyshabur, arXiv 2106.09647): layers 0 … L − 1 are those probed at the last step, from
  the input to the embedding; the depth is the first from which on k-NN gives the network's last answer at every layer. L: not
  even at the embedding, so that the network's own output is the first to give it. With one probed layer it is 0 or 1.
- Step learned, first right, forgotten (Toneva et al., arXiv 1812.05159): `step_learned`, the first evaluation from which on
  every answer is y; `first_right`, the first whose answer is y; `forgotten`, how often an answer that was y is not y at the
  next evaluation. Theirs look at every batch; what happens between two evaluations is not seen here, so that `forgotten` is a
  lower bound and, where it is 0, `step_learned` too. Missing: never (at the last evaluation). Never right: 0 forgotten.
- Cartography (Swayamdipta et al., arXiv 2009.10795): `confidence`, the mean of p_t(y) over t; `variability`, its standard
  deviation (divided by T: 0 where there is one evaluation); `correctness`, the share of evaluations whose answer is y.
- EL2N (Paul, Ganguli and Dziugaite, arXiv 2107.07075): |p_t − e_y| in L2 at the first evaluation that is not before a tenth of
  the training. One run's; theirs is the mean over ten, which several seeds give.
- `loo_probability`: the share of the k neighbours on the embedding, the image itself left out, whose label is y, at the end.
- `agrees_<probe>`, `d_kl_<probe>`: whether a probe on the embedding gives the network's answer, and D_KL(probe‖DNN) in nats,
  eq. (1), at the end: their means are P_SAME and D_KL of the measures.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..measures.formulas import d_kl, log_softmax, normalized, predicted
from .common import SPLITS, Columns, Part

#: EL2N is taken at the first evaluation from this share of the training on: the authors' epoch 20 of 200.
EARLY = 0.1


def measure(part: Part) -> Columns:
    """Return one row per image, those of train before those of test; the specification has ``knn``, the probe of the depth."""
    both = [_split(part, split) for split in SPLITS]
    return {name: np.concatenate([columns[name] for columns in both]) for name in both[0]}


def _split(part: Part, split: str) -> Columns:
    given, true = part.given[split], part.true[split]
    image = part.label_set.indices if split == "train" else np.arange(len(given))
    columns = {"split": np.full(len(given), split), "image": image, "label": given, "true_label": true}
    steps = sorted({step for shard in part.spec["shards"] for step in shard["steps"]})
    later = steps[1:] or steps
    columns |= along_the_steps(later, (part.logits(step, split) for step in later), given)
    logits = part.logits(steps[-1], split)
    columns |= at_the_end(part, split, steps[-1], logits)
    return columns


def along_the_steps(steps: list[int], logits: Iterable[np.ndarray], given: np.ndarray) -> Columns:
    """Return what the answers of all evaluations say of each image; see the module's definitions.

    Parameters
    ----------
    steps: ascending, step 0 left out. logits: (N, C) for each of them. given: the labels that count as right, (N,).
    """
    rows, early = np.arange(len(given)), next(step for step in steps if step >= EARLY * steps[-1])
    probability, right = np.empty((len(steps), len(given))), np.empty((len(steps), len(given)), bool)
    el2n = np.empty(len(given))
    for position, (step, values) in enumerate(zip(steps, logits, strict=True)):
        p = np.exp(log_softmax(values))
        probability[position], right[position] = p[rows, given], predicted(values) == given
        if step == early:
            p[rows, given] -= 1
            el2n = np.sqrt((p**2).sum(axis=1))
    lasting = np.cumprod(right[::-1], axis=0).sum(axis=0)  # evaluations at the end that are all right
    at = np.append(np.array(steps, float), np.nan)
    never = len(steps)
    return {
        "step_learned": at[never - lasting],
        "first_right": at[np.where(right.any(axis=0), right.argmax(axis=0), never)],
        "forgotten": (right[:-1] & ~right[1:]).sum(axis=0),
        "confidence": probability.mean(axis=0),
        "variability": probability.std(axis=0),
        "correctness": right.mean(axis=0),
        "el2n": el2n,
    }


def at_the_end(part: Part, split: str, step: int, logits: np.ndarray) -> Columns:
    """Return what the network and the probes say of each image at the last step."""
    given, answer, log_q, knn = part.given[split], predicted(logits), log_softmax(logits), part.spec["knn"]
    shards = [shard["name"] for shard in part.spec["shards"] if step in shard["steps"]]
    places = {layer: shard for shard in shards for layer in part.layers(shard)}
    names = [*(layer for layer in places if layer != "embedding"), "embedding"]
    votes = {layer: part.models(places[layer], step, layer, [knn])[split][knn] for layer in names}
    models = part.models(places["embedding"], step, "embedding")[split]
    depth = prediction_depth(np.array([predicted(votes[name].probabilities(slice(None))) for name in names]), answer)
    columns = {
        "answer": answer,
        "right": answer == given,
        "prediction_depth": depth,
        "layers": np.full(len(given), len(names)),
        "depth": depth / len(names),
        "depth_layer": np.array([*names, "output"])[depth],
        "loo_probability": models[knn].probabilities(slice(None))[np.arange(len(given)), given],
    }
    for name, model in models.items():
        probabilities = model.probabilities(slice(None))
        decided = model.decision is not None and model.predict == "decision"
        columns[f"agrees_{name}"] = (model.decision if decided else predicted(probabilities)) == answer
        columns[f"d_kl_{name}"] = d_kl(normalized(probabilities), log_q)
    return columns


def prediction_depth(votes: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return the first layer from which on all votes are the network's answer, int (N,); the number of layers if none is.

    Parameters
    ----------
    votes: k-NN's answers (L, N), layers in the network's order. answer: the network's, (N,).
    """
    return len(votes) - np.cumprod(votes[::-1] == answer, axis=0).sum(axis=0)
