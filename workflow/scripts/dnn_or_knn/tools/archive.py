"""Carry results from one machine to another without weights, features and probe outputs.

    python workflow/scripts/results.py pack results/paper paper.tar.gz
    python workflow/scripts/results.py pack results/paper mnist.tar.gz --only mnist
    python workflow/scripts/results.py unpack paper.tar.gz

The archive holds tables, figures, claims, the report, all manifests and provenance, which say there what is stale.
Unpacked into another checkout of the same code, figures, claims and report are drawn from the tables there, and
nothing else runs. Unpacking never executes anything and refuses paths outside `results/`.

With --only it holds the runs of some data sets (`mnist`), networks or seeds (`'*/*/*/seed1'`), and nothing that is drawn
of all. Several archives of one experiment, made on several machines or packed in parts, are unpacked and redrawn together.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..plan.atlas import switched_on
from ..plan.runs import create
from ..plan.startup import FROZEN
from ..runtime.errors import UserError
from ..runtime.files import atomic, read_json, remove, sha256, write_json
from .joined import joined
from .verify import problems, provenance_files

LEFT_OUT = (".npy", ".npz", ".pt")
MEASURED = "measures/measures.json"
#: What is made of all runs of an experiment, in its folder; whatever else lies there is a data set's.
OF_ALL = ("measures", "figures", "claims", "report.html", "report.json", "report.provenance.json")


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


def chosen(results: Path, only: Sequence[str]) -> list[Path]:
    """Return the files that travel: all, or those of the runs below some patterns; `UserError` where one names none."""
    files = list(packed(results))
    if not only:
        return files
    files = [path for path in files if path.relative_to(results).parts[0] not in OF_ALL]
    found = {path for path in files if path == results / FROZEN}
    for pattern in only:
        below = [path for path in files if any(parent.match(f"{results}/{pattern}") for parent in path.parents)]
        if not any(path.name.endswith(".provenance.json") for path in below):
            raise UserError(
                f"--only {pattern}: {results}/{pattern} is no folder with results; such as mnist or '*/*/*/seed0'"
            )
        found.update(below)
    # What the runs were made of; archives of one data set may all hold it.
    datasets = {path.relative_to(results).parts[0] for path in found - {results / FROZEN}}
    behind = {(name, part) for name in datasets for part in ("store", "labels")}
    return sorted(found | {path for path in files if path.relative_to(results).parts[:2] in behind})


def pack(results: Path, archive: Path, only: Sequence[str] = ()) -> int:
    """Write the archive, atomically, and return its number of files."""
    if results.is_absolute() or len(results.parts) != 2 or results.parts[0] != "results" or not results.is_dir():
        raise UserError(f"{results} is not an experiment's folder below results/; run this from the project's root")
    files = chosen(results, only)
    # Of a part, that part: the rest may still be made, or made anew, on this machine.
    if wrong := next(problems(results, without=LEFT_OUT, among=set(files) if only else None), None):
        raise UserError(f"{results} is not packed, since {wrong}")
    with atomic(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for path in files:
            tar.add(path, arcname=path.as_posix())
    return len(files)


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


def unpacked(archives: Sequence[Path], *, whole: bool = False) -> tuple[Path, int]:
    """Unpack beside the present results, refusing to overwrite; return the experiment's folder and the number of files.

    Of several archives, what is made of all runs (measures, figures, claims, the page) stays packed.

    Parameters
    ----------
    whole: refuse archives that lack the measures of a configured run.
    """
    with _scratch() as scratch:
        folders = {path: _extracted(path, Path(scratch, str(number))) for number, path in enumerate(archives)}
        (_, first), *others = folders.items()
        for archive, folder in others:
            if folder.name != first.name:
                raise UserError(f"{archive} holds results/{folder.name}, and {archives[0]} results/{first.name}")
            _join(archive, folder, first)
        if others:
            frozen = {path: read_json(folder / FROZEN) for path, folder in folders.items()}
            config = joined({path: content["config"] for path, content in frozen.items()})
            pieces = {name: count for content in frozen.values() for name, count in content.get("pieces", {}).items()}
            write_json(first / FROZEN, frozen[archives[0]] | {"config": config, "pieces": pieces}, sort_keys=False)
            for name in OF_ALL:
                remove(first / name)
        names = " and ".join(map(str, archives))
        if wrong := next(problems(first), None):
            raise UserError(
                f"{names}: what is unpacked does not fit: {wrong}" if others else f"{names} is damaged: {wrong}"
            )
        if whole:
            _refuse_a_lack(first, names)
        experiment = Path("results", first.name)
        count = len(list(packed(first)))
        # At once: what is there is whole, even if this is killed.
        first.replace(experiment)
    return experiment, count


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """Yield a folder for a while, on the disk of the results; nothing stays of it, nor of `results` where it was not there."""
    Path("results").mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir="results", prefix=".unpack-") as folder:
            yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # there are other experiments
            Path("results").rmdir()
        raise


def _extracted(archive: Path, scratch: Path) -> Path:
    """Unpack an archive into a new folder, and return its experiment's there."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            found = members(tar)
            experiment = Path(*PurePosixPath(found[0].name).parts[:2])
            if experiment.exists():
                raise UserError(f"{experiment} exists already; move that experiment's results away before unpacking")
            tar.extractall(scratch, members=found, filter="data")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{archive} could not be unpacked: {error}") from error
    if not provenance_files(scratch / experiment):
        raise UserError(f"{archive} is damaged: it holds no provenance")
    return scratch / experiment


def _join(archive: Path, folder: Path, whole: Path) -> None:
    """Move the results of another archive beside those of the first; a result that both hold must be one and the same."""
    for path in packed(folder):
        name = path.relative_to(folder)
        if name.parts[0] in (*OF_ALL, FROZEN):
            continue
        there = whole / name
        # Of one result, made twice, how it was made may differ.
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            path.replace(there)
        elif sha256(path) != sha256(there) and not name.name.endswith(".provenance.json"):
            raise UserError(f"{archive} holds {name}, as another archive does, and they differ; give one of them")


def _refuse_a_lack(results: Path, archives: str) -> None:
    """Raise `UserError` if a run of the configuration has no measures, or if a measure beside the paper's stayed packed."""
    made = create(read_json(results / FROZEN)["config"])
    lacking = [name for name in made.runs if not (results / name / MEASURED).is_file()]
    if lacking:
        more = f" (and of {len(lacking) - 1} more runs)" if lacking[1:] else ""
        raise UserError(
            f"{archives} holds no measures of {lacking[0]}{more}; give the archives that do, in one command"
        )
    for measure in switched_on(made.config):
        if not (results / "measures" / f"{measure}.json").is_file():
            raise UserError(
                f"{archives}: `measures: {{{measure}: true}}` is on, and what it shows needs images and features, which are "
                "not packed; redraw one archive of the whole experiment instead"
            )


def main(command: str, words: list[str]) -> int:
    """Write an archive, or unpack some into the working folder."""
    parser = argparse.ArgumentParser(
        prog=f"results.py {command}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if command == "pack":
        parser.add_argument("results", type=Path, help="the folder of an experiment")
        parser.add_argument("archive", type=Path, help="the archive to write, .tar.gz")
        parser.add_argument(
            "--only",
            nargs="+",
            default=[],
            metavar="PATTERN",
            help="at the end: folders of runs, below results/<experiment>",
        )
        args = parser.parse_args(words)
        print(f"{pack(args.results, args.archive, args.only)} files packed into {args.archive}")
    else:
        parser.add_argument("archives", type=Path, nargs="+", help="archives of one experiment, .tar.gz")
        print(f"{unpacked(parser.parse_args(words).archives)[1]} files unpacked, every digest fits")
    return 0
