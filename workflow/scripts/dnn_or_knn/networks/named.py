"""Networks by name: ``torchvision:<model>``, ``timm:<model>`` or ``<file>.py:<function>`` of one's own, with their probe points.

Whatever the network is made of, it is one call of a module. Probe points are modules in it, by name: their outputs are caught
by forward hooks and pooled as the paper's are, by the mean over positions. The last layer with weights is the classifier if its
output is the logits; the embedding is its input.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import numerics
from ..runtime import files
from ..runtime.errors import UserError, nearest
from ..runtime.progress import log
from . import stages
from .parts import ProbePoint, wide

#: Relative error up to which W · embedding + b counts as the logits, and features as the same whatever the batch.
TOLERANCE = 1e-5


class Named(nn.Module):
    """See the module's docstring; inputs (N, channels, size, size). The network itself is `model`."""

    def __init__(
        self, make: Callable[[], nn.Module], spec: Mapping[str, Any], *, channels: int, size: int, classes: int
    ) -> None:
        """
        Parameters
        ----------
        make: returns the network with weights drawn from PyTorch's global generator.
        spec: ``network`` (its name), ``layers`` ("auto" or names of modules), ``classifier`` ("auto" or the name of one).
        """
        super().__init__()
        self.name, self.classes, self._make = spec["network"], classes, make
        self.model = make()
        without_chance(self.model)
        self._repeats = channels == 1 and _first_channels(self.model) == 3
        trial = self._trial(channels, size, classes, spec)
        self.head = trial.head
        self.linear = trial.linear and self._product(trial.embedding) is not None
        self._logits: torch.Tensor | None = None
        wanted = spec.get("layers", "auto")
        chosen = trial.stages() if wanted == "auto" else [self._module(name, "layers") for name in wanted]
        self.layers = {_point(name): name for name in chosen}
        dimensions = self._dimensions(channels, trial.size)
        self.probe_points = (
            ProbePoint("input", channels * size * size, 0, "input"),
            *(ProbePoint(point, dimensions[point], stage, "unit") for stage, point in enumerate(self.layers, 1)),
            ProbePoint("embedding", dimensions["embedding"], len(self.layers) + 1, "embedding"),
        )

    @property
    def classifier(self) -> Classifier:
        """What stands for a function from the embedding to the logits."""
        return Classifier(self)

    def _product(self, embedding: torch.Tensor) -> torch.Tensor | None:
        """Return W · embedding + b of the head, (N, classes); None if its weights are of another shape, as a convolution's may be."""
        layer: Any = self.model.get_submodule(self.head)
        weights = layer.weight.flatten(1)
        if weights.shape != (self.classes, embedding.shape[1]):
            return None
        return nn.functional.linear(embedding, weights, layer.bias)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights as the network itself does, from the generator's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            self.model.load_state_dict(self._make().state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return wide(self.model(self._colours(x)))

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(x, {})["embedding"]

    def activations(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._run(x, self.layers)

    def _run(self, x: torch.Tensor, layers: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """Return the pooled outputs of modules, by probe point, and the embedding; the logits are kept for `Classifier`."""
        seen: dict[str, torch.Tensor] = {}

        def catch(point: str) -> Callable[..., None]:
            return lambda _module, _given, made: seen.__setitem__(point, stages.pooled(made))

        def catch_input(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            seen["embedding"] = stages.pooled(given[0])

        with contextlib.ExitStack() as stack:
            for point, name in layers.items():
                stack.callback(self.model.get_submodule(name).register_forward_hook(catch(point)).remove)
            head = self.model.get_submodule(self.head)
            stack.callback(head.register_forward_pre_hook(catch_input).remove)
            stack.callback(head.register_forward_hook(_in_full_precision).remove)
            self._logits = self.forward(x)
        return {point: wide(seen[point]) for point in (*layers, "embedding")}

    def _colours(self, x: torch.Tensor) -> torch.Tensor:
        return x.expand(-1, 3, -1, -1) if self._repeats else x

    def _trial(self, channels: int, size: int, classes: int, spec: Mapping[str, Any]) -> stages.Trial:
        """Return what happens in the network when it is shown two images, of 64 pixels at least if it takes them.

        It has to take those of `size` pixels in any case.
        """
        error: Exception | None = None
        for side in dict.fromkeys((max(size, 64), size)):
            images = torch.rand((2, channels, side, side), generator=torch.Generator().manual_seed(0))
            try:
                found = stages.watch(self.model, self._colours(images), side, classes, spec.get("classifier", "auto"))
                if side != size:
                    with torch.no_grad(), evaluating(self):
                        self.model(self._colours(images[..., :size, :size]))
            except UserError:
                raise
            except Exception as wrong:  # whatever a stranger's code raises
                error = wrong
                continue
            return found
        raise UserError(
            f"{self.name} does not take images of {channels} × {size} × {size} ({_said(error)}); set its `options`, such as "
            "image_size or img_size, or take another network"
        ) from error

    def _module(self, name: str, key: str) -> str:
        known = dict(self.model.named_modules())
        if name not in known or not name:
            raise UserError(f"{self.name} has no module '{name}', which {key} names{nearest(name, list(known)[1:])}")
        return name

    def _dimensions(self, channels: int, size: int) -> dict[str, int]:
        images = torch.rand((2, channels, size, size), generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), evaluating(self):
            try:
                return {point: made.shape[1] for point, made in self._run(images, self.layers).items()}
            except KeyError as error:
                raise UserError(
                    f"{self.name} does not run its module '{self.layers.get(error.args[0], error.args[0])}'; take it out of layers"
                ) from error


class Classifier:
    """The logits of a `Named` network's images that were embedded last.

    They are no function of the embedding where the head is more than W · x + b, and whether it is can change with the weights.
    """

    def __init__(self, network: Named) -> None:
        self._network = network
        self.out_features = network.classes

    def __call__(self, embedding: torch.Tensor) -> torch.Tensor:
        logits = self._network._logits
        assert logits is not None and len(logits) == len(embedding)
        return logits


def mistakes(network: Named, images: torch.Tensor) -> dict[str, str]:
    """Return what does not hold of a network in evaluation mode, each in one sentence: "head", "batch".

    "head": W · embedding + b is not the logits. "batch": an image's features depend on the others in its batch.

    Parameters
    ----------
    images: standardized, (N, channels, size, size), three or more.
    """
    with torch.no_grad(), evaluating(network):
        together = network.activations(images)
        logits = network(images)
        alone = {name: torch.cat([network.activations(x[None])[name] for x in images[:2]]) for name in together}
        product = network._product(together["embedding"])
    found = {}
    if product is None or relative(product, logits) > TOLERANCE:
        found["head"] = not_linear(network)
    worst = max(together, key=lambda name: relative(alone[name], together[name][:2]))
    if relative(alone[worst], together[worst][:2]) > TOLERANCE and not _by_rounding(network, images, worst):
        found["batch"] = (
            f"{network.name} gives an image other features at '{worst}' alone than in a batch; take a network whose "
            "evaluation mode looks at each image by itself"
        )
    return found


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, in units of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Have a network in evaluation mode for a while."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def without_chance(model: nn.Module) -> None:
    """Turn off dropout and stochastic depth, in place: a step here is a function of the seed and the step alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]
        elif type(module).__name__ == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]


def _first_channels(model: nn.Module) -> int | None:
    """Return how many channels the first convolution takes; None without one."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), None)


def _point(name: str) -> str:
    """Return the probe point of a module: its name, as a file's name may be."""
    point = name.replace(".", "_")
    return f"{point}_module" if point in ("input", "embedding") else point


# Where networks come from.


def build(spec: Mapping[str, Any], *, channels: int, size: int, classes: int) -> Named:
    """Build the network of a specification; ``options`` are the keywords of its builder, ``sha256`` is that of one's own file."""
    source, _, name = spec["network"].rpartition(":")
    options = dict(spec.get("options", {}))
    makers = {"torchvision": _torchvision, "timm": _timm}
    if source in makers:
        make = makers[source](name, options, classes)
    else:
        function = _function(Path(source), name, spec.get("sha256"))

        def make() -> nn.Module:
            return function(channels=channels, size=size, classes=classes, **options)

    network = Named(_checked(make, spec["network"]), spec, channels=channels, size=size, classes=classes)
    if not network.linear:
        log.warning("%s", not_linear(network))
    return network


def _checked(make: Callable[[], nn.Module], name: str) -> Callable[[], nn.Module]:
    """Return a builder whose errors are one sentence, whatever a stranger's code raises."""

    def made() -> nn.Module:
        try:
            model = make()
        except Exception as error:
            if isinstance(error, UserError) or numerics.is_out_of_memory(error):
                raise
            raise UserError(f"{name} could not be built ({_said(error)}); correct its options") from error
        if not isinstance(model, nn.Module):
            raise UserError(f"{name} returns a {type(model).__name__}, not a module; return the network")
        return model

    return made


def _in_full_precision(layer: Any, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor | None:
    """Return a layer's output in the precision of its weights where autocast computed it in another."""
    if made.dtype == layer.weight.dtype:
        return None
    with torch.autocast(made.device.type, enabled=False):
        return layer.forward(given[0].to(layer.weight.dtype))


def _said(error: Exception | None) -> str:
    """Return an error's words in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _by_rounding(network: Named, images: torch.Tensor, name: str) -> bool:
    """Say whether features that differ with the batch in float32 are the same in float64."""
    if images.dtype == torch.float64:
        return False
    double, exact = copy.deepcopy(network).double(), images.double()
    with torch.no_grad(), evaluating(double):
        try:
            together, alone = double.activations(exact)[name][:1], double.activations(exact[:1])[name]
        except RuntimeError:  # a network that computes in float32 whatever it is given
            return False
    return relative(alone, together) <= TOLERANCE


def not_linear(network: Named) -> str:
    """Return the sentence about a head that is more than W · x + b."""
    return (
        f"{network.name} computes its logits from the input of '{network.head}' by more than W · x + b: its head is not linear, "
        "so probes of the embedding are not probes of what its classifier sees; D_KL stands"
    )


def _torchvision(name: str, options: dict[str, Any], classes: int) -> Callable[[], nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(f"torchvision has no classifier '{name}'{nearest(name, known)}")
    if name in ("googlenet", "inception_v3"):  # the auxiliary heads are of training alone
        options = {"aux_logits": False, "init_weights": True} | options
    return lambda: models.get_model(name, weights=None, num_classes=classes, **options)


def _timm(name: str, options: dict[str, Any], classes: int) -> Callable[[], nn.Module]:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise UserError(
            f"timm:{name} needs timm, which is not installed; pip install -r envs/timm.txt -c envs/constraints.txt"
        ) from error
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    return lambda: timm.create_model(name, pretrained=False, num_classes=classes, **options)


def _function(path: Path, name: str, sha256: str | None) -> Callable[..., nn.Module]:
    """Return the function of one's own file that builds the network: it is called with channels, size, classes and the options."""
    if not path.is_file():
        raise UserError(f"{path}:{name} is to build a network, but there is no file {path}; correct the path")
    if sha256 not in (None, files.sha256(path)):
        raise UserError(f"{path} was changed since this job was planned; run again")
    told = importlib.util.spec_from_file_location(f"dnn_or_knn_own_{path.stem}", path)
    assert told is not None and told.loader is not None
    module = importlib.util.module_from_spec(told)
    sys.modules[told.name] = module  # where dataclasses look for it
    try:
        told.loader.exec_module(module)
    except Exception as error:
        if isinstance(error, UserError) or numerics.is_out_of_memory(error):
            raise
        raise UserError(f"{path} could not be run ({type(error).__name__}: {_said(error)}); mend the file") from error
    if not callable(getattr(module, name, None)):
        raise UserError(f"{path} has no function '{name}'{nearest(name, dir(module))}")
    return getattr(module, name)
