"""What exists: data sets, architectures, probes, measures.  To add one is one entry here and one configuration block.

An entry names the module that does the work, so that reading the tables imports nothing, and declares its options
as JSON schema: the configuration is checked against it, and docs/configuration.md is generated from it. What a job
uses of an entry goes into the job's specification; this file itself is no job's code, and a new entry makes nothing
stale.
"""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]


def _choice(description: str, *values: object) -> Entry:
    """An option with fixed values, the first being the default."""
    return {"enum": list(values), "default": values[0], "description": description}


def _number(description: str, default: float, **bounds: float) -> Entry:
    kind = "integer" if isinstance(default, int) else "number"
    return {"type": kind, "default": default, "description": description, **bounds}


#: name → how to load it (module in `loaders/`), its geometry, its options; `images`, where known: [train, test], or how many
#: there are together, of which the option `test_fraction` are the test set.
DATASETS: dict[str, Entry] = {
    "digits": {
        "loader": "digits",
        "images": 1797,
        "channels": 1,
        "size": 8,
        "classes": 10,
        "options": {
            "test_fraction": _number(
                "Share of the images that are the test set.", 0.2, exclusiveMinimum=0, exclusiveMaximum=1
            ),
            "split_seed": _number("Seed of the split.", 0, minimum=0),
        },
    },
    "fashion14": {
        "loader": "bundled",
        "images": [2000, 1000],
        "file": "fashion14/fashion-mnist-14.npz",
        "sha256": "b3beb8ea9c574c79f2b84a7ff67c3eb62f02afa581b794f25f7c73e0b9974f25",
        "class_names": [
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ],
        "channels": 1,
        "size": 14,
        "classes": 10,
        "options": {},
    },
    "mnist": {
        "loader": "torchvision",
        "class": "MNIST",
        "images": [60000, 10000],
        "channels": 1,
        "size": 28,
        "classes": 10,
        "options": {},
    },
    "cifar10": {
        "loader": "torchvision",
        "class": "CIFAR10",
        "images": [50000, 10000],
        "channels": 3,
        "size": 32,
        "classes": 10,
        "options": {},
    },
    "cifar100": {
        "loader": "torchvision",
        "class": "CIFAR100",
        "images": [50000, 10000],
        "channels": 3,
        "size": 32,
        "classes": 100,
        "options": {},
    },
}


def _optional(kind: str, description: str, **more: Any) -> Entry:
    """An option that may be left out, and stands in no specification then."""
    return {"type": [kind, "null"], "default": None, "description": description, **more}


_COLOURS = {"items": {"type": "number"}, "minItems": 1, "maxItems": 3}
#: Options of every data set.
ANY_DATASET: Entry = {
    "title": _optional("string", "Its name in figures and on the page."),
    "mean": _optional(
        "array",
        "Mean of each channel, of pixels from 0 to 1, with `std`: networks see (pixel − mean) / std, not images standardized one by one.",
        **_COLOURS,
    ),
    "std": _optional("array", "Standard deviation of each channel.", **_COLOURS),
}

_ROOT = {"type": "string", "minLength": 1}
_CLASSES = _number("Classes; labels go from 0 to one less.", 10, minimum=1)
_SPLIT: Entry = {
    "test_fraction": _number(
        "Share of each class that is the test set, where there is no test folder.",
        0.2,
        exclusiveMinimum=0,
        exclusiveMaximum=1,
    ),
    "split_seed": _number("Seed of that split.", 0, minimum=0),
}
#: loader → the options of a data set of your own that has `loader: <loader>` in the configuration (docs/your-own-data.md).
LOADERS: dict[str, Entry] = {
    "folder": {
        "options": {
            "root": _ROOT
            | {
                "description": "Folder with one folder of pictures a class, or with `train` and `test` (or `val`) that have."
            },
            "size": {
                "type": "integer",
                "minimum": 1,
                "maximum": 4096,
                "description": "Pictures become size × size pixels.",
            },
            "resize": _optional(
                "integer",
                "The shorter side is resized to it, then the middle is cut out; null: to `size`.",
                minimum=1,
                maximum=8192,
            ),
            "channels": _choice("Colours, or grey.", 3, 1),
            "classes": _optional("integer", "Number of classes; null: the folders are counted.", minimum=1),
            **_SPLIT,
        },
        "required": ["root", "size"],
    },
    "npz": {
        "options": {
            "root": _ROOT
            | {
                "description": "An .npz file with `train_images`, `train_labels`, `test_images`, `test_labels` (or `x_train`, `y_train`, …); "
                "images uint8 (N, size, size), (N, size, size, channels) or (N, channels, size, size); optional `class_names`."
            },
            "size": {"type": "integer", "minimum": 1, "maximum": 4096, "description": "Pixels of a side."},
            "channels": _choice("Colours, or grey.", 3, 1),
            "classes": _CLASSES,
        },
        "required": ["root", "size", "classes"],
    },
    "features": {
        "options": {
            "root": _ROOT
            | {
                "description": "An .npz file with `train_labels` and `test_labels`, or a folder with these as .npy files: the labels of `subjects` of "
                "features alone. There are no images.",
            },
            "classes": _optional("integer", "Number of classes; null: one more than the largest label.", minimum=1),
        },
        "required": ["root"],
        "geometry": {"channels": 1, "size": 1},
    },
    "torchvision": {
        "options": {
            "class": {
                "enum": ["MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100"],
                "description": "The class in torchvision.datasets; its files are looked for below `data.root`.",
            },
        },
        "required": ["class"],
    },
}
#: torchvision's class → what its images are.
TORCHVISION: dict[str, Entry] = {
    **{
        name: {"images": [60000, 10000], "channels": 1, "size": 28, "classes": 10}
        for name in ("MNIST", "FashionMNIST", "KMNIST")
    },
    "CIFAR10": {"images": [50000, 10000], "channels": 3, "size": 32, "classes": 10},
    "CIFAR100": {"images": [50000, 10000], "channels": 3, "size": 32, "classes": 100},
}

_ANY_NETWORK: Entry = {
    "initialization": _choice("Distribution of the initial weights.", "he", "glorot", "authors"),
    "normalize_embedding": _choice("L2-normalise the embedding before the last layer.", False, True),
}
_EMBEDDING = {"embedding": _number("Width of the embedding.", 640, minimum=1)}

#: Options of every network.
ANY_ARCHITECTURE: Entry = {
    "title": _optional("string", "Its name in figures and on the page."),
    "depth": _optional(
        "integer",
        "Layers with weights, by which figures and claims 1 and 2 order networks; of those by name null: after all others.",
        minimum=1,
    ),
}
#: A network by its library's name, or one's own (docs/your-own-network.md).
NAMED: Entry = {
    "module": "named",
    "options": {
        "network": {
            "type": "string",
            "minLength": 1,
            "description": "`torchvision:<model>`, `timm:<model>`, or `<file>.py:<function>`, which is called with `channels`, `size`, `classes` and the `options`. "
            "The entry's own name may be that instead.",
        },
        "layers": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "default": "auto",
            "description": "Probe points: names of modules in the order of execution, or `auto`, the stages.",
        },
        "classifier": {
            "type": "string",
            "default": "auto",
            "description": "Name of the module that computes the logits, or `auto`, the last layer with one output a class.",
        },
        "options": {
            "type": "object",
            "default": {},
            "description": "Keywords for what builds it, such as `{image_size: 64}`.",
        },
    },
}

#: name pattern (its groups are integers of the network) → module in `networks/`, layers with weights (`depth`, where it is
#: no group of the name), options.
ARCHITECTURES: dict[str, Entry] = {
    r"mlp(?P<width>[1-9]\d*)": {"module": "mlp", "depth": 2, "options": _ANY_NETWORK},
    r"lenet": {"module": "lenet", "depth": 4, "options": _ANY_NETWORK | _EMBEDDING},
    r"wrn-(?P<depth>[1-9]\d*)-(?P<width>[1-9]\d*)": {
        "module": "wrn",
        "options": _ANY_NETWORK
        | {
            "activation": _choice("ReLU, or leaky ReLU with slope 0.1.", "relu", "leaky_relu"),
            "shortcut": _choice(
                "Where the width changes: 1×1 convolution, or average pooling and zero channels (no parameters).",
                "conv",
                "pool",
            ),
            "batch_norm_momentum": _number("Weight of the new batch in running statistics.", 0.1, minimum=0, maximum=1),
            "batch_norm_eps": _number("Added to the variance in batch normalisation.", 1e-5, exclusiveMinimum=0),
        },
    },
}

_ANY_PROBE: Entry = {
    "pca": {
        "type": ["object", "null"],
        "additionalProperties": False,
        "required": ["components"],
        "default": None,
        "description": "PCA to `components` dimensions, fitted on the train features of each evaluation, at every probe point but `skip_layers`.",
        "properties": {
            "components": _number("Dimensions kept, at most.", 64, minimum=1),
            "skip_layers": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "description": "Probe points left as they are.",
            },
        },
    },
    "normalize": _choice("L2-normalise the features first.", False, True),
}

_ANY_LINEAR: Entry = {
    "C": _number("Inverse strength of the penalty.", 1.0, exclusiveMinimum=0),
    "tolerance": _number("Relative distance from the optimum at which a fit stops.", 1e-6, exclusiveMinimum=0),
    "backend": _choice("This project's solver, or scikit-learn on the same objective.", "exact", "reference"),
}

#: kind → module in `probes/`, options.
PROBES: dict[str, Entry] = {
    "knn": {
        "module": "knn",
        "options": _ANY_PROBE
        | {
            "metric": _choice("Distance.", "l2", "l1", "cosine"),
            "k": _number("Neighbours that vote.", 30, minimum=1),
            "k_max": _number(
                "Neighbours kept on disk; any k up to it is read off without another search.",
                30,
                minimum=1,
                maximum=100_000,
            ),
            "k_sweep": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1},
                "default": [],
                "description": "Further k, measured beside `k` under names such as `knn-k5`.",
            },
            "vote": {
                "type": ["object", "null"],
                "additionalProperties": False,
                "required": ["weights"],
                "default": None,
                "description": "How neighbours vote: null, all alike; or by their similarity (`metric: cosine` alone), read off like `k` (docs/protocols.md).",
                "properties": {
                    "weights": _choice("All alike, or softmax(cosine / temperature).", "uniform", "softmax"),
                    "temperature": _number("Divides the cosines.", 0.07, exclusiveMinimum=0),
                },
            },
            "chunk_mib": _number("Memory of the search beside its inputs, in MiB.", 256, minimum=1, maximum=1_000_000),
            "backend": _choice("This project's search, scikit-learn's, or faiss's.", "exact", "reference", "faiss"),
        },
    },
    "svm": {
        "module": "svm",
        "options": _ANY_PROBE
        | _ANY_LINEAR
        | {
            "loss": _choice("Loss of the margin.", "squared_hinge", "hinge"),
            "multiclass": _choice("One classifier a class, or one a pair of classes.", "ovr", "ovo"),
            "predict": _choice(
                "What gives the label, the decision values or the Platt probabilities.", "decision", "probability"
            ),
            "platt_folds": _number("Folds of the scores that the Platt sigmoids are fitted on.", 5, minimum=2),
        },
    },
    "logistic": {
        "module": "logistic",
        "options": _ANY_PROBE
        | _ANY_LINEAR
        | {
            "penalty": _choice("Norm of the penalty.", "l2", "l1"),
            "multiclass": _choice("Softmax, or one sigmoid a class.", "multinomial", "ovr"),
        },
    },
}

#: Options of a probe that are read off its outputs by the measures and do not belong to the fit.
READ_OFF = ("k", "k_sweep", "vote", "predict")

#: name → module in `atlas/`, and what it reads: "outputs", what the network and the probes of a run said; "features", those of
#: one shard too, before they go; "weights", those that a run kept. `measures.<name>` of the configuration switches it on.
#: `judged`: the later claims are judged on it. `figures`: modules in `figures/` that show it.
MEASURES: dict[str, Entry] = {
    "examples": {
        "module": "examples",
        "reads": "outputs",
        "judged": True,
        "figures": ["depth", "extremes"],
        "description": "Measure every image: prediction depth, step learned, forgetting, cartography, EL2N (docs/atlas.md).",
    },
    "geometry": {
        "module": "geometry",
        "reads": "features",
        "figures": ["geometry"],
        "description": "Measure every probed layer: intrinsic dimension, neural collapse, CKA (docs/atlas.md). Features that are gone are extracted again for it.",
    },
    "rewind": {
        "module": "rewind",
        "reads": "weights",
        "judged": True,
        "figures": ["rewinding"],
        "description": "Measure the network with each layer set back to each earlier step (docs/atlas.md): forward passes from the kept weights, layers × steps of them.",
    },
}
