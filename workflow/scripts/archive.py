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
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.runtime.files import atomic
from verify import problems, provenance_files

RECORDS = Path(".snakemake") / "metadata"
#: Of a name in a folder of records; Snakemake cuts longer ones (NAME_MAX less the mark of a folder).
LONGEST = 254
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


def record(path: PurePath) -> Path:
    """Return the place of Snakemake's record of a file: its name in base64, in folders where that is too long."""
    name = base64.urlsafe_b64encode(str(path).encode()).decode()
    *folders, last = [name[start : start + LONGEST] for start in range(0, len(name), LONGEST)]
    return RECORDS.joinpath(*(f"@{folder}" for folder in folders), last)


def of_record(path: PurePath) -> PurePosixPath | None:
    """Return the file that a record of Snakemake's is of, None if it is no record."""
    try:
        name = base64.urlsafe_b64decode("".join(part.removeprefix("@") for part in path.parts[2:])).decode()
    except ValueError:
        return None
    return PurePosixPath(name) if record(PurePosixPath(name)) == Path(path) else None


def inside(path: PurePath | None, folder: PurePath) -> bool:
    """Return whether a path lies below a folder, by its name alone."""
    return path is not None and path.parts[: len(folder.parts)] == folder.parts and ".." not in path.parts


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
        # Of what stays behind as well: without them Snakemake would not see there that it is stale.
        for path in sorted(RECORDS.rglob("*")):
            if path.is_file() and inside(of_record(path), results):
                tar.add(path, arcname=path.as_posix())
    return count


def members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of an archive; all but plain files of one experiment, and their records, are refused."""
    found: dict[str, tarfile.TarInfo] = {}
    size, free = 0, shutil.disk_usage(Path("results") if Path("results").exists() else ".").free
    for member in tar:
        path = PurePosixPath(member.name)
        known = (path.parts[:1] == ("results",) and len(path.parts) > 2) or path.parts[:2] == RECORDS.parts
        if not member.isreg() or not known or ".." in path.parts or member.name in found:
            raise UserError(
                f"the archive holds '{member.name}', which is no plain file below results/; it was not made by pack"
            )
        found[member.name] = member
        size += member.size
        if size > free:
            raise UserError(f"the archive needs more than {size / 1e9:.1f} GB, and the disk has less free; make room")
    files = [PurePosixPath(name) for name in found if name.startswith("results")]
    if len({path.parts[1] for path in files}) != 1:
        raise UserError("the archive does not hold one experiment's results; it was not made by pack")
    experiment = PurePosixPath(*files[0].parts[:2])
    for name in found:
        if not name.startswith("results") and not inside(of_record(PurePosixPath(name)), experiment):
            raise UserError(f"the archive holds '{name}', no record of a file of {experiment}; it was not made by pack")
    return list(found.values())


def unpack(archive: Path) -> int:
    """Unpack beside the present results, refusing to overwrite, and return the number of files."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            found = members(tar)
            files = [member.name for member in found if member.name.startswith("results")]
            experiment = Path(*PurePosixPath(files[0]).parts[:2])
            if experiment.exists():
                raise UserError(f"{experiment} exists already; move that experiment's results away before unpacking")
            experiment.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=experiment.parent, prefix=".unpack-") as scratch:
                tar.extractall(scratch, members=found, filter="data")
                if not provenance_files(Path(scratch, experiment)):
                    raise UserError(f"{archive} is damaged: it holds no provenance")
                if wrong := next(problems(Path(scratch, experiment)), None):
                    raise UserError(f"{archive} is damaged: {wrong}")
                # The results last and at once: what is there is whole, even if this is killed.
                for name in {member.name for member in found} - set(files):
                    Path(name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(Path(scratch, name), name)
                Path(scratch, experiment).replace(experiment)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{archive} could not be unpacked: {error}") from error
    return len(files)


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
