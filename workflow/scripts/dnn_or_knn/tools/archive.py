"""Carry results from one machine to another without weights, features and probe outputs.

    python workflow/scripts/results.py pack results/paper paper.tar.gz
    python workflow/scripts/results.py unpack paper.tar.gz

The archive holds tables, figures, claims, the report, all manifests and provenance, which say there what is stale.
Unpacked into another checkout of the same code, figures, claims and report are drawn from the tables there, and
nothing else runs. Unpacking never executes anything and refuses paths outside `results/`.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..plan.startup import FROZEN
from ..runtime.errors import UserError
from ..runtime.files import atomic
from .verify import problems, provenance_files

LEFT_OUT = (".npy", ".npz", ".pt")


def packed(results: Path) -> Iterator[Path]:
    """Yield the files of an experiment that travel."""
    for path in sorted(results.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(results).parts)
        if (
            path.is_file()
            and (not hidden or path == results / FROZEN)
            and path.suffix not in LEFT_OUT
            and "logs" not in path.relative_to(results).parts[:1]
        ):
            yield path


def pack(results: Path, archive: Path) -> int:
    """Write the archive, atomically, and return its number of files."""
    if results.is_absolute() or len(results.parts) != 2 or results.parts[0] != "results" or not results.is_dir():
        raise UserError(f"{results} is not an experiment's folder below results/; run this from the project's root")
    if wrong := next(problems(results, without=LEFT_OUT), None):
        raise UserError(f"{results} is not packed, since {wrong}")
    count = 0
    with atomic(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for path in packed(results):
            tar.add(path, arcname=path.as_posix())
            count += 1
    return count


def members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of an archive; all but plain files of one experiment are refused."""
    found: dict[str, tarfile.TarInfo] = {}
    size, free = 0, shutil.disk_usage(Path("results") if Path("results").exists() else ".").free
    for member in tar:
        path = PurePosixPath(member.name)
        known = path.parts[:1] == ("results",) and len(path.parts) > 2
        if not member.isreg() or not known or ".." in path.parts or member.name in found:
            raise UserError(
                f"the archive holds '{member.name}', which is no plain file below results/; it was not made by pack"
            )
        found[member.name] = member
        size += member.size
        if size > free:
            raise UserError(f"the archive needs more than {size / 1e9:.1f} GB, and the disk has less free; make room")
    if len({PurePosixPath(name).parts[1] for name in found}) != 1:
        raise UserError("the archive does not hold one experiment's results; it was not made by pack")
    return list(found.values())


def unpack(archive: Path) -> int:
    """Unpack beside the present results, refusing to overwrite, and return the number of files."""
    return unpacked(archive)[1]


def unpacked(archive: Path) -> tuple[Path, int]:
    """Do as `unpack`, and return the experiment's folder and the number of files."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            found = members(tar)
            experiment = Path(*PurePosixPath(found[0].name).parts[:2])
            if experiment.exists():
                raise UserError(f"{experiment} exists already; move that experiment's results away before unpacking")
            experiment.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=experiment.parent, prefix=".unpack-") as scratch:
                tar.extractall(scratch, members=found, filter="data")
                if not provenance_files(Path(scratch, experiment)):
                    raise UserError(f"{archive} is damaged: it holds no provenance")
                if wrong := next(problems(Path(scratch, experiment)), None):
                    raise UserError(f"{archive} is damaged: {wrong}")
                # At once: what is there is whole, even if this is killed.
                Path(scratch, experiment).replace(experiment)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{archive} could not be unpacked: {error}") from error
    return experiment, len(found)


def main(command: str, words: list[str]) -> int:
    """Write an archive, or unpack one into the working folder."""
    parser = argparse.ArgumentParser(
        prog=f"results.py {command}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if command == "pack":
        parser.add_argument("results", type=Path, help="the folder of an experiment")
    parser.add_argument("archive", type=Path, help="the archive, .tar.gz")
    args = parser.parse_args(words)
    if command == "pack":
        print(f"{pack(args.results, args.archive)} files packed into {args.archive}")
    else:
        print(f"{unpack(args.archive)} files unpacked, every digest fits")
    return 0
