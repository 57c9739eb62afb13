"""Pictures on disk, one folder a class, as torchvision's ImageFolder has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import files
from ...runtime.errors import UserError
from .common import Data
from .digits import stratified_split

#: A picture's file and its label.
Sample = tuple[str, int]


def load(spec: Mapping[str, Any], root: Path, download: bool) -> Data:
    """Find the pictures below ``spec["root"]``; they are decoded one by one when the store is written.

    With a folder `train` there, and `test` or `val` beside it, these are the two sets; else the classes lie in the root itself (or
    in `train`), and ``test_fraction`` of each, drawn with ``split_seed``, is the test set. Classes are numbered in the
    order of their names. A picture is turned into ``channels`` colours; its shorter side is resized to ``resize`` (or ``size``)
    pixels, bilinear and antialiased, and the middle ``size`` × ``size`` cut out, as torchvision's `Resize` and `CenterCrop` do.

    Raises
    ------
    UserError: a folder is missing or empty, the sets differ in their classes, or a picture cannot be decoded.
    """
    top = Path(spec["root"])
    train_folder = top / "train" if (top / "train").is_dir() else top
    test_folder = next((top / name for name in ("test", "val") if train_folder != top and (top / name).is_dir()), None)
    train, classes = _samples(train_folder)
    split = {"test_fraction": spec["test_fraction"], "split_seed": spec["split_seed"]}
    if test_folder is not None:
        test, others = _samples(test_folder)
        if classes != others:
            differ = sorted({*classes} ^ {*others})
            raise UserError(
                f"{train_folder} and {test_folder} have other classes ({', '.join(differ[:5])}); mend the folders"
            )
        split = {}
    else:
        apart = stratified_split(np.array([label for _, label in train]), **_named(split))
        train, test = (
            [sample for sample, chosen in zip(train, apart == part, strict=True) if chosen] for part in (False, True)
        )
    pictures = [Pictures([path for path, _ in part], spec) for part in (train, test)]
    labels = [np.array([label for _, label in part], dtype=np.int64) for part in (train, test)]
    origin = {"loader": "folder", "sha256": _digest([*train, *test], top), **split}
    return Data(pictures[0], labels[0], pictures[1], labels[1], classes, origin)  # type: ignore[arg-type]


class Pictures:
    """Pictures that are decoded while they are written: as much of an array uint8 (N, channels, size, size) as a store needs."""

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[str], spec: Mapping[str, Any]) -> None:
        size = spec["size"]
        self.paths, self.resize = paths, spec.get("resize") or size
        self.shape = (len(paths), spec["channels"], size, size)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each picture, (channels, size, size)."""
        from PIL import Image, UnidentifiedImageError
        from torchvision.transforms import functional

        _, channels, size, _ = self.shape
        for path in self.paths:
            try:
                with Image.open(path) as file:
                    if file.mode[0] in "IF":  # Pillow would cut their values off at 255
                        raise UserError(f"{path} has more than 8 bits a pixel (mode {file.mode}); save it with 8")
                    picture = functional.resize(file.convert("RGB" if channels == 3 else "L"), [self.resize])
            except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
                raise UserError(f"{path} is no picture that can be decoded ({error}); replace or remove it") from error
            pixels = np.asarray(functional.center_crop(picture, [size, size]), dtype=np.uint8)
            yield np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))

    def save(self, path: Path) -> None:
        """Write the array as .npy, whole or not at all, one picture in memory at a time."""
        with files.atomic(path) as temporary, open(temporary, "wb") as file:
            header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for picture in self:
                file.write(picture.tobytes())


def _named(split: Mapping[str, Any]) -> dict[str, Any]:
    return {"test_fraction": split["test_fraction"], "seed": split["split_seed"]}


def _samples(folder: Path) -> tuple[list[Sample], list[str]]:
    """Return the pictures of a folder in the order of their classes and names, and the classes."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        classes = [name for name in find_classes(str(folder))[0] if not name.startswith(".")]
        numbers = {name: label for label, name in enumerate(classes)}
        return make_dataset(str(folder), numbers, IMG_EXTENSIONS), classes
    except (FileNotFoundError, OSError) as error:
        raise UserError(f"{folder} does not hold one folder of pictures a class ({error}); mend it") from error


def _digest(samples: Sequence[Sample], top: Path) -> str:
    """Return the SHA-256 over every file's name below the root and its content."""
    digest = hashlib.sha256()
    for path, _ in samples:
        try:
            content = files.sha256(path)
        except OSError as error:  # a link to nothing
            raise UserError(f"{path} cannot be read ({error.strerror}); replace or remove it") from error
        digest.update(f"{Path(path).relative_to(top).as_posix()} {content}\n".encode())
    return digest.hexdigest()
