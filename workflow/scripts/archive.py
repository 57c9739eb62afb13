"""Carry results from one machine to another without weights, features and probe outputs.

    python workflow/scripts/archive.py pack results/paper paper.tar.gz
    python workflow/scripts/archive.py unpack paper.tar.gz

The archive holds tables, figures, claims, the report, all manifests and provenance, and Snakemake's records of them.
Unpacked into another checkout of the same code, figures, claims and report are drawn from the tables there, and
nothing else runs. Unpacking never executes anything and refuses paths outside `results/`.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dnn_or_knn.errors import UserError
from dnn_or_knn.files import atomic
from verify import problems

RECORDS = Path(".snakemake") / "metadata"
LEFT_OUT = (".npy", ".npz", ".pt")


def packed(results: Path) -> Iterator[Path]:
    """Yield the files of an experiment that travel."""
    for path in sorted(results.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(results).parts)
        if (
            path.is_file()
            and not hidden
            and path.suffix not in LEFT_OUT
            and "logs" not in path.relative_to(results).parts[:1]
        ):
            yield path


def record(path: Path) -> Path:
    """Return the place of Snakemake's record of a file."""
    return RECORDS / base64.urlsafe_b64encode(str(path).encode()).decode()


def pack(results: Path, archive: Path) -> int:
    """Write the archive, atomically, and return its number of files."""
    if results.is_absolute() or results.parts[:1] != ("results",) or not results.is_dir():
        raise UserError(f"{results} is not an experiment's folder below results/; run this from the project's root")
    count = 0
    with atomic(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for path in packed(results):
            for file in (path, record(path)):
                if file.is_file():
                    tar.add(file, arcname=file.as_posix())
            count += 1
    return count


def members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of an archive; anything but plain files below results/ and the records is refused."""
    found = tar.getmembers()
    for member in found:
        path = PurePosixPath(member.name)
        inside = path.parts[:1] == ("results",) or (path.parts[:2] == RECORDS.parts and len(path.parts) == 3)
        if not member.isfile() or not inside or ".." in path.parts or path.is_absolute():
            raise UserError(
                f"the archive holds '{member.name}', which is no plain file below results/; it was not made by pack"
            )
    return found


def unpack(archive: Path) -> int:
    """Unpack beside the present results, refusing to overwrite, and return the number of files."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            found = members(tar)
            there = next((m.name for m in found if m.name.startswith("results") and Path(m.name).exists()), None)
            if there:
                raise UserError(f"{there} exists already; move that experiment's results away before unpacking")
            with tempfile.TemporaryDirectory(dir=".", prefix=".unpack-") as scratch:
                tar.extractall(scratch, members=found, filter="data")
                for experiment in Path(scratch, "results").iterdir():
                    wrong = list(problems(experiment))
                    if wrong:
                        raise UserError(f"{archive} is damaged: {wrong[0]}")
                for member in found:
                    Path(member.name).parent.mkdir(parents=True, exist_ok=True)
                    Path(scratch, member.name).replace(member.name)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} could not be unpacked: {error}") from error
    return sum(member.name.startswith("results") for member in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write an archive")
    packing.add_argument("results", type=Path)
    packing.add_argument("archive", type=Path)
    unpacking = commands.add_parser("unpack", help="unpack an archive into this checkout")
    unpacking.add_argument("archive", type=Path)
    args = parser.parse_args()
    if args.command == "pack":
        print(f"{pack(args.results, args.archive)} files packed into {args.archive}")
    else:
        print(f"{unpack(args.archive)} files unpacked, every digest fits")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
