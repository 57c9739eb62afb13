"""Images that stay on disk: those of a store that are too large to lie in memory are read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch

#: Images read at a time where all are gone through.
CHUNK = 64


class Streamed:
    """Images of a store, as much of a tensor uint8 (N, channels, size, size) as training and extraction use of it.

    They are read with `pread`, not mapped: mapped pages would count as the job's memory. The operating system keeps in its
    cache what fits.
    """

    dtype = np.dtype(np.uint8)
    #: so many at a time when a network's accuracy is taken
    at_a_time = 32

    def __init__(self, stored: np.memmap, chosen: np.ndarray | None = None, device: torch.device | str = "cpu") -> None:
        """
        Parameters
        ----------
        stored: the store's images, a memory map in C order.
        chosen: int64 (N,), which of them; None: all.
        device: where what is asked for is put.
        """
        self.device = torch.device(device)
        self._stored, self._chosen = stored, np.arange(len(stored)) if chosen is None else np.asarray(chosen)
        self._file = os.open(str(stored.filename), os.O_RDONLY)
        self.shape = (len(self._chosen), *stored.shape[1:])

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, part: slice) -> torch.Tensor:
        return self._read(self._chosen[part])

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield the images, some at a time."""
        return (self[start : start + CHUNK] for start in range(0, len(self), CHUNK))

    def index_select(self, axis: int, places: torch.Tensor) -> torch.Tensor:
        """Return the images at these places; `axis` is 0, as a tensor's method has it."""
        return self._read(self._chosen[places.cpu().numpy()])

    def on(self, device: torch.device) -> Streamed:
        """Return the same images, to be put on a device."""
        return Streamed(self._stored, self._chosen, device)

    def sum(self, axis: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return the sums over axes of each image, as an array's method does."""
        return np.concatenate([part.cpu().numpy().sum(axis=axis, dtype=dtype) for part in self])

    def _read(self, positions: np.ndarray) -> torch.Tensor:
        images = np.empty((len(positions), *self.shape[1:]), dtype=np.uint8)
        size = int(np.prod(self.shape[1:]))
        for image, position in zip(images, positions.tolist(), strict=True):
            if os.preadv(self._file, [memoryview(image).cast("B")], self._stored.offset + position * size) != size:
                raise OSError(f"{self._stored.filename} ends before image {position}")
        return torch.from_numpy(images).to(self.device)
