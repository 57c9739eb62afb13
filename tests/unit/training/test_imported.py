"""Weights that were trained elsewhere: read, compared, refused; and their place in the plan."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dnn_or_knn.figures import style, training_curves
from dnn_or_knn.networks.build import create
from dnn_or_knn.plan import networks, runs
from dnn_or_knn.plan.configuration import load_overlays, resolve
from dnn_or_knn.plan.specifications import Jobs
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.training.history import history_text
from dnn_or_knn.training.imported import fill, read
from snakemake.utils import update_config
from tiny_training import CLASSES, LENET, SIZE, stage
from torch import nn

RESNET = {"module": "named", "network": "torchvision:resnet18"}


def lenet(seed: int = 0) -> Any:
    return create(LENET, channels=3, size=SIZE, classes=CLASSES, seed=seed)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {"lr": 0.1}},
        lambda state: {"net": {"model_state_dict": {f"_orig_mod.module.{n}": v for n, v in state.items()}}},
    ],
)
def test_the_usual_wrappers_are_taken_off(wrap: Any, tmp_path: Path) -> None:
    state = lenet(3).state_dict()
    torch.save(wrap(state), tmp_path / "a.pt")
    network = lenet()
    fill(network, read(tmp_path / "a.pt"), tmp_path / "a.pt")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_safetensors_are_read_as_they_are(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    state = lenet(3).state_dict()
    library.save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "a.safetensors")
    network = lenet()
    fill(network, read(tmp_path / "a.safetensors"), tmp_path / "a.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_prefix_that_the_network_has_itself_stays(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(2, 2))

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Own()

    for prefix in ("", "module."):
        given, network = Own().state_dict(), Wrapped()
        fill(network, {prefix + name: value for name, value in given.items()}, tmp_path / "a.pt")
        assert all(torch.equal(value, given[name]) for name, value in network.model.state_dict().items())


def test_safetensors_are_asked_for_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="needs safetensors"):
        read(tmp_path / "a.safetensors")


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (marker,)

    torch.save({"state_dict": Bomb()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save(lenet(), tmp_path / "c.pt")  # the whole network, not its weights
    for name in ("a.pt", "b.pt", "c.pt"):
        with pytest.raises(UserError, match=rf"{name} is a pickle that would run code"):
            read(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (b"", "holds no weights that can be read"),
        (b"hello", "holds no weights that can be read|would run code"),
        ([1, 2], "holds no state dict"),
        ({"state_dict": {}}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
    ],
)
def test_what_is_no_state_dict_is_one_sentence(content: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=said):
        read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("classifier.bias"), "it lacks 'classifier.bias'"),
        (lambda s: s.update(extra=torch.zeros(1)), "the network has no 'extra'"),
        (
            lambda s: s.update({"classifier.weight": torch.zeros(9, 32)}),
            r"'classifier.weight' is \(9, 32\), not \(5, 32\)",
        ),
        (lambda s: s["conv1.weight"].fill_(float("nan")), "'conv1.weight' holds values that are not finite"),
    ],
)
def test_another_networks_weights_are_one_sentence(change: Any, said: str, tmp_path: Path) -> None:
    state = lenet(1).state_dict()
    change(state)
    with pytest.raises(UserError, match=said):
        fill(lenet(), state, tmp_path / "a.pt")


def imported(tmp_path: Path, network: dict[str, Any], weights: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the stage on a tiny store."""
    command = stage(tmp_path, {"network": network, "weights": weights})
    command[1] = command[1].replace("train.py", "import_weights.py")
    at = command.index("--device")
    return subprocess.run(command[:at] + command[at + 2 :], capture_output=True, text=True)


@pytest.mark.parametrize("network", [LENET, RESNET], ids=["lenet", "resnet"])
def test_the_stage_leaves_what_a_training_leaves(network: dict[str, Any], tmp_path: Path) -> None:
    weights = {}
    for step in (0, 40):
        made = create(network, channels=3, size=SIZE, classes=CLASSES, seed=step)
        weights[str(step)] = str(tmp_path / f"{step}.pt")
        torch.save(getattr(made, "model", made).state_dict(), weights[str(step)])
    done = imported(tmp_path, network, weights)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    manifest = json.loads((run / "training.json").read_text())
    assert manifest["checkpoints"] == [0, 40] and manifest["steps"] == 40 and manifest["final_loss"] is None
    assert set(manifest["files"]) == {"checkpoints/step000000.pt", "checkpoints/step000040.pt", "history.csv"}
    assert manifest["imported"]["40"]["file"] == "40.pt"
    kept = torch.load(run / "checkpoints/step000040.pt", weights_only=True)
    again = create(network, channels=3, size=SIZE, classes=CLASSES)
    again.load_state_dict(kept["model"])
    assert kept["step"] == 40 and all(
        torch.equal(value, made.state_dict()[name]) for name, value in kept["model"].items()
    )


def test_features_that_depend_on_the_batch_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x - x.mean(dim=0, keepdim=True)\n"
        "def net(channels, size, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 8), Odd(), nn.Linear(8, classes))\n"
    )
    network = {"module": "named", "network": f"{tmp_path / 'net.py'}:net"}
    torch.save(create(network, channels=3, size=SIZE, classes=CLASSES).model.state_dict(), tmp_path / "a.pt")
    done = imported(tmp_path, network, {"5": str(tmp_path / "a.pt")})
    assert done.returncode == 2 and "alone than in a batch" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_run_without_a_history_is_said_to_be_trained_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(history_text([], {}))
    name = "digits/mine/true-labels/seed0"
    table = training_curves.data({name: tmp_path / "history.csv"})
    with style.applied(style.style({})):
        drawn = training_curves.draw(table, [name], {})
    assert "trained elsewhere: no history" in {text.get_text() for ax in drawn.axes for text in ax.texts}
    assert training_curves.alt(table) == "Training loss and batch accuracy against training step."


# In the plan.


def plan(tmp_path: Path, **subject: Any) -> dict[str, Any]:
    """Return a configuration with one subject."""
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"x")
    config = load_overlays()
    told = {"network": "torchvision:resnet18", "dataset": "mnist"}
    told["checkpoints"] = {0: str(tmp_path / "a.pt"), 1000: str(tmp_path / "b.pt")}
    update_config(config, {"runs": [], "subjects": {"mine": told | subject}})
    return config


def test_a_subject_is_imported_and_nothing_is_trained(tmp_path: Path) -> None:
    jobs = Jobs(runs.create(plan(tmp_path, layers="all", title="Mine")))
    assert [task.rule for task in jobs.tasks if task.rule in ("train", "import_weights")] == ["import_weights"]
    spec = next(json.loads(task.spec) for task in jobs.tasks if task.rule == "import_weights")
    assert spec["weights"] == {"0": str(tmp_path / "a.pt"), "1000": str(tmp_path / "b.pt")}
    assert spec["network"] == {
        "module": "named",
        "network": "torchvision:resnet18",
        "layers": "auto",
        "classifier": "auto",
        "options": {},
    }
    run = jobs.experiment.runs["mnist/mine/true-labels/seed0"]
    assert run.checkpoints == run.evaluations == [0, 1000]
    assert [shard.name for shard in jobs.experiment.shards(run)] == ["steps000000-001000", "layers001000"]
    assert jobs.imported() == "mine" and "mine" not in jobs.trained().split("|")
    figure = next(json.loads(task.spec) for task in jobs.tasks if task.manifest == "figures/figure5")
    assert figure["architectures"] == ["wrn-28-10"] and "mnist/wrn-28-10/true-labels" in figure["missing"]
    assert figure["titles"] == {"mine": "Mine"}


def test_what_the_head_froze_is_the_same_plan(tmp_path: Path) -> None:
    made = runs.create(plan(tmp_path))
    again = runs.create(json.loads(json.dumps(made.config)))
    assert [task.spec for task in Jobs(made).tasks] == [task.spec for task in Jobs(again).tasks]
    assert "subjects" not in resolve(load_overlays())


def test_a_subject_takes_the_options_of_the_architecture_that_it_names(tmp_path: Path) -> None:
    config = plan(tmp_path, network="torchvision:resnet18")
    update_config(config, {"architectures": {"torchvision:resnet18": {"layers": ["layer1"]}, "wrn-28-10": None}})
    made = runs.create(config)
    assert made.runs["mnist/mine/true-labels/seed0"].network["layers"] == ["layer1"]
    assert made.config["figures"]["architecture"] == "mine", "the network of the figures is dropped"
    wrn = runs.create(plan(tmp_path, network="wrn-16-4")).runs["mnist/mine/true-labels/seed0"].network
    assert wrn["module"] == "wrn" and wrn["depth"] == 16 and wrn["activation"] == "relu"
    assert networks.depth("wrn-16-4", {}) == 16


def test_a_subject_takes_no_other_files_network_of_its_name(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"def small(): return '{folder}'\n")
    config = plan(tmp_path, network=f"{tmp_path}/b/net.py:small")
    update_config(config, {"architectures": {f"{tmp_path}/a/net.py:small": {"layers": ["layer1"]}}})
    network = runs.create(config).runs["mnist/mine/true-labels/seed0"].network
    assert network["network"] == f"{tmp_path}/b/net.py:small" and network["layers"] == "auto"


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ({"checkpoints": {0: "/no/such/file.pt"}}, "which is not there"),
        ({"checkpoints": {"first": "a.pt"}}, "the step 'first'"),
        ({"checkpoints": {}}, "empty"),
        ({"checkpoints": {"7": __file__, "007": __file__}}, "checkpoints has the step 7 twice, as '7' and as '007'"),
        ({"dataset": "mnits"}, "subjects.mine.dataset is 'mnits'.*did you mean 'mnist'"),
        ({"network": "resnet"}, "matches nothing in the registry"),
        ({"network": "here.py:net"}, "a file that is there"),
        ({"labls": "x"}, "unknown key 'labls'"),
    ],
)
def test_a_bad_subject_is_one_sentence(subject: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        runs.create(plan(tmp_path, **subject))


def test_without_runs_and_subjects_there_is_nothing_to_do() -> None:
    config = load_overlays()
    config["runs"] = []
    with pytest.raises(UserError, match="there are no subjects"):
        runs.create(config)
