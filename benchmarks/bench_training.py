"""Training and feature extraction: images per second, training against the loop that a user would write.

The plain loop is a DataLoader with worker processes, torchvision's transforms on PIL images, per-image standardization,
eager float32, torch.optim.SGD. Ours is `trainer.Trainer` as the pipeline uses it. Both train on the same made-up
CIFAR-sized images with the augmentation on. Rounds of the two alternate, so that what else the machine does meets both;
the medians and their ratio are printed as a Markdown table.

The second table holds the extraction stage, weights read and features written, against two limits: its forward pass alone,
and the forward pass at the rate of floating-point operations that training reaches. Below it stands what a state costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))
from dnn_or_knn import numerics
from dnn_or_knn.features import extraction
from dnn_or_knn.networks.build import create
from dnn_or_knn.runtime import files, gpus, resume
from dnn_or_knn.training.batches import Images
from dnn_or_knn.training.step import Trainer

CLASSES, SIZE, COUNT = 10, 32, 10_000
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp640": {"module": "mlp", "width": 640},
    "lenet": {"module": "lenet"},
    "wrn-16-4": {"module": "wrn", "depth": 16, "width": 4},
    "wrn-28-10": {"module": "wrn", "depth": 28, "width": 10},
}
#: network → (batch, steps of ours and of the plain loop in a round, images of an evaluation) on the CPU and on a GPU.
CPU_ROUNDS = {"mlp640": (200, 60, 20, 10_000), "lenet": (200, 6, 4, 2000), "wrn-16-4": (50, 4, 3, 400)}
GPU_ROUNDS = {
    "mlp640": (200, 3000, 60, 60_000),
    "lenet": (200, 2000, 60, 60_000),
    "wrn-16-4": (200, 500, 60, 60_000),
    "wrn-28-10": (200, 200, 30, 60_000),
}
#: The same for a network that is not listed.
OTHERS = (10, 1, 1, 30)
#: Evaluations of an extraction job, as in the pipeline.
EVALUATIONS = 10


def settings(batch_size: int) -> dict[str, Any]:
    """Return the paper's training of CIFAR-10, at another batch size if wanted."""
    return {
        "steps": 50_000,
        "batch_size": batch_size,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "nesterov": True,
        "decay_at": [],
        "decay_factor": 0.2,
        "weight_decay": 0.00078,
        "weight_decay_on": "weights",
        "pad": 2,
        "flip": True,
        "shuffle": "full",
        "shuffle_buffer": 200,
    }


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's CIFAR10 gives them out: PIL, then the transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images.transpose(0, 2, 3, 1).copy(), labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SIZE, padding=2),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Lambda(standardized),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def standardized(image: torch.Tensor) -> torch.Tensor:
    """Return one image, in 0 … 1, without its mean, divided by its standard deviation."""
    return (image - image.mean()) / image.std(correction=0).clamp_min(image.numel() ** -0.5 / 255)


def plain(
    name: str, images: np.ndarray, labels: np.ndarray, batch: int, device: torch.device, workers: int
) -> Callable[[int], float]:
    """Return a function that makes steps of the plain loop and returns their images per second."""
    from torch.utils.data import DataLoader

    net = create(NETWORKS[name], channels=3, size=SIZE, classes=CLASSES).to(device).train()
    wanted = settings(batch)
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=wanted["learning_rate"],
        momentum=wanted["momentum"],
        nesterov=True,
        weight_decay=wanted["weight_decay"],
    )
    loader = DataLoader(
        Pictures(images, labels),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )

    def stream() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    source = stream()

    def steps(count: int) -> float:
        total = 0.0
        for _ in range(count):
            x, y = next(source)
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        assert np.isfinite(total)
        return total

    def measured(count: int) -> float:
        steps(2 * workers + 1)  # what the workers had prepared while the other loop ran does not count
        started = time.perf_counter()
        steps(count)
        return count * batch / (time.perf_counter() - started)

    return measured


def ours(
    name: str, images: np.ndarray, labels: np.ndarray, batch: int, device: torch.device, wanted_precision: str
) -> tuple[Callable[[int], float], str]:
    """Return a function that makes steps of our loop and returns their images per second, and the precision."""
    precision = numerics.set_precision(wanted_precision, device)
    net = create(NETWORKS[name], channels=3, size=SIZE, classes=CLASSES)
    data = Images(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))
    trainer = Trainer(net, settings(batch), data, seed=0, device=device, precision=precision)
    trainer.prepare(50_000)

    def steps(count: int) -> None:
        for _ in range(count):
            trainer.advance()
        assert all(np.isfinite(loss) for loss, _ in trainer.read(wait=True))

    def measured(count: int) -> float:
        steps(3)
        started = time.perf_counter()
        steps(count)
        return count * batch / (time.perf_counter() - started)

    return measured, precision


def flop(name: str) -> tuple[float, float]:
    """Return the floating-point operations of one image's forward pass, and of forward and backward pass together."""
    from torch.utils.flop_counter import FlopCounterMode

    net = create(NETWORKS[name], channels=3, size=SIZE, classes=CLASSES)
    with FlopCounterMode(display=False) as counter:
        logits = net(torch.zeros((2, 3, SIZE, SIZE)))
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward / 2, counter.get_total_flops() / 2


def features(name: str, count: int, device: torch.device, precision: str, folder: Path) -> float:
    """Return the images per second of an extraction job, from its first finished evaluation to its last."""
    net = create(NETWORKS[name], channels=3, size=SIZE, classes=CLASSES)
    (folder / "checkpoints").mkdir()
    steps = list(range(EVALUATIONS))
    for step in steps:
        torch.save({"model": net.state_dict(), "step": step}, folder / "checkpoints" / f"step{step:06d}.pt")
    pixels = np.random.default_rng(0).integers(256, size=(count, 3, SIZE, SIZE), dtype=np.uint8)
    splits = {"train": pixels[count // 6 :], "test": pixels[: count // 6]}
    spec = {"batch_size": 1000, "compile": True}
    with resume.opened(folder / "state", "bench") as state:
        job = extraction.Job(
            run=name,
            network=net,
            points=extraction.select(net, ["embedding"]),
            input_layer="pixels",
            steps=steps,
            splits=splits,
            how=extraction.arithmetic(net, splits, spec, kept=EVALUATIONS, device=device, precision=precision),
            checkpoints=folder / "checkpoints",
            listing=files.listing(folder / "checkpoints"),
            state=state,
        )
        extraction.extract(job, device=device)
    finished = sorted(path.stat().st_mtime for path in state.folder.glob("step*.json"))
    return (EVALUATIONS - 1) * count / (finished[-1] - finished[0])


def forward_alone(name: str, count: int, device: torch.device, precision: str) -> float:
    """Return the images per second of extraction's forward pass, on one batch again and again."""
    net = create(NETWORKS[name], channels=3, size=SIZE, classes=CLASSES)
    net = net.to(device=device, memory_format=torch.channels_last).eval()
    run = extraction.forward_function(net, ["embedding"], device=device, precision=precision)
    if device.type == "cuda":
        run = numerics.compiled(run, device)
    size = 1000 if device.type == "cuda" else extraction.CPU_BATCH
    batch = torch.randint(256, (size, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)

    def seconds(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            made = run(batch)
        float(made["logits"].sum())  # waits for a GPU
        return time.perf_counter() - started

    with torch.no_grad():
        seconds(3)
        times = max(2, count // size)
        return statistics.median(times * size / seconds(times) for _ in range(EVALUATIONS - 1))


def state_cost(folder: Path) -> tuple[int, float, float]:
    """Return the size in bytes of a state of WRN-28-10, and the seconds to take it and to write it to disk."""
    net = create(NETWORKS["wrn-28-10"], channels=3, size=SIZE, classes=CLASSES)
    data = Images(torch.zeros((200, 3, SIZE, SIZE), dtype=torch.uint8), torch.zeros(200, dtype=torch.int64))
    trainer = Trainer(net, settings(200), data, seed=0, device=torch.device("cpu"))
    started = time.perf_counter()
    snapshot = trainer.snapshot()
    taken = time.perf_counter()
    with resume.opened(folder, "bench") as saved:
        saved.save(lambda file: torch.save(snapshot, file))
        written = time.perf_counter()
        size = next(folder.glob("state-*")).stat().st_size
    trainer.close()
    return size, taken - started, written - taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="default: those that the device can bear")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all cores)")
    parser.add_argument("--workers", type=int, default=2, help="the plain loop's worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each loop (default: 5)")
    parser.add_argument("--precision", default="auto", help="of our loop: auto, float32, tf32, bf16 (default: auto)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = gpus.resolve(args.device)
    rounds = GPU_ROUNDS if device.type == "cuda" else CPU_ROUNDS
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(COUNT, 3, SIZE, SIZE), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=COUNT)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} threads"
    print(f"Training, {machine}, torch {torch.__version__}, medians of {args.rounds} interleaved rounds\n")
    print("| network | batch | precision | ours, images/s | plain loop, images/s | ratio (lowest to highest) |")
    print("|---|---|---|---|---|---|")
    reached = {}
    for name in args.networks or rounds:
        batch, our_steps, plain_steps, _ = rounds.get(name, OTHERS)
        fast, precision = ours(name, images, labels, batch, device, args.precision)
        slow = plain(name, images, labels, batch, device, args.workers)
        pairs = [(fast(our_steps), slow(plain_steps)) for _ in range(args.rounds)]
        ratios = sorted(one / two for one, two in pairs)
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        spread = f"{medians[0] / medians[1]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {batch} | {precision} | {medians[0]:,.0f} | {medians[1]:,.0f} | {spread} |", flush=True)
        reached[name] = (medians[0], precision)
    print(
        "\n| network | extraction, images/s | forward pass alone | limit that training reaches | share of that limit |"
    )
    print("|---|---|---|---|---|")
    for name, (trained, precision) in reached.items():
        count = rounds.get(name, OTHERS)[3]
        forward, both = flop(name)
        limit = trained * both / forward
        alone = forward_alone(name, count, device, precision)
        with tempfile.TemporaryDirectory() as folder:
            made = features(name, count, device, precision, Path(folder))
        print(f"| {name} | {made:,.0f} | {alone:,.0f} | {limit:,.0f} | {made / limit:.0%} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        size, taken, written = state_cost(Path(folder) / "state")
    print(
        f"\nA state of WRN-28-10: {size / 1e6:.0f} MB, training waits {taken:.2f} s, written and synced after {written:.2f} s more."
    )


if __name__ == "__main__":
    main()
