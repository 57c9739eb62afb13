"""`verify` names whatever does not fit; `pack` and `unpack` carry results over, whole, and refuses what it did not make."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPTS
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.runs import create
from dnn_or_knn.runtime import code_digest, files, results
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.tools import archive, verify

RESULTS = Path("results/toy")
RUN = RESULTS / "digits/mlp8/true-labels/seed0"


def make(manifest: Path, arrays: list[Path], inputs: list[Path]) -> None:
    """Make a result as a stage does: files, a manifest that lists them, provenance."""
    for path in arrays:
        files.write_text(path, f"the content of {path.name}")
    spec = {"k": 30, "code": {"files": ["probe.py"], "digest": code_digest.code_digest("probe.py")}}
    results.finish(argparse.Namespace(spec=spec, threads=1, output=manifest), {}, arrays, inputs=inputs)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a small experiment: a network's weights, features that were released, logits, a probe, a figure."""
    # None of the names that may be absent counts above the experiment's folder.
    root = tmp_path / "features" / "checkout"
    root.mkdir(parents=True)
    monkeypatch.chdir(root)
    make(RUN / "training.json", [RUN / "checkpoints" / "step000000.pt"], [])
    shard = RUN / "features" / "steps000000-000000.json"
    make(shard, [RUN / "features" / shard.stem / "a.npy"], [RUN / "training.json"])
    shutil.rmtree(RUN / "features" / shard.stem)
    fits = RUN / "probes" / "knn" / shard.name
    make(fits, [fits.with_suffix("") / "a.npz"], [shard])
    make(
        RESULTS / "figures" / "figure1.json",
        [RESULTS / "figures" / f"figure1.{kind}" for kind in ("pdf", "csv")],
        [fits],
    )
    files.write_json(RESULTS / ".frozen.json", {"config": {}})
    return root


def found() -> list[str]:
    return list(verify.problems(RESULTS))


def test_a_whole_folder_fits_and_what_was_released_is_counted(here: Path) -> None:
    released: list[Path] = []
    assert list(verify.problems(RESULTS, released)) == []
    assert released == [RUN / "features" / "steps000000-000000"]


def test_a_manifest_that_lists_files_elsewhere_is_not_followed(here: Path) -> None:
    """Such as one from an archive that somebody else packed."""
    listed = files.listing(here.parent, []) | {"../../../../../../../secret": {"bytes": 1, "sha256": ""}}
    args = argparse.Namespace(spec={}, threads=1, output=RUN / "training.json")
    results.finish(args, {}, listed, inputs=[])
    assert [sentence for sentence in found() if "training.json lists files outside results/toy" in sentence]


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def record(path: Path, **values: object) -> None:
    files.write_json(path, files.read_json(path) | values)


FITS = RUN / "probes/knn/steps000000-000000"
FIGURE = RESULTS / "figures/figure1"


@pytest.mark.parametrize(
    ("path", "damage", "words"),
    [
        (RUN / "checkpoints/step000000.pt", altered, "is damaged: its SHA-256"),
        (FITS / "a.npz", altered, "is damaged: its SHA-256"),
        (FIGURE.with_suffix(".pdf"), altered, "is damaged: its SHA-256"),
        (FIGURE.with_suffix(".csv"), lambda path: path.write_text(""), "is damaged: 0 bytes instead of"),
        (FIGURE.with_suffix(".csv"), Path.unlink, "is missing though its manifest lists it"),
        (FIGURE.with_suffix(".json"), lambda path: record(path, panels=3), "but on disk it has"),
        (FIGURE.with_suffix(".json"), lambda path: path.write_text("{"), "is not valid JSON"),
        (
            FIGURE.with_suffix(".json"),
            lambda path: path.write_text('{"files": {"figure1.pdf": 3}}'),
            "does not say what",
        ),
        (FITS.with_suffix(".json"), Path.unlink, "which is missing"),
        (RUN / "training.json", lambda path: record(path, more=1), "says that the job read"),
        (RUN / "training.provenance.json", lambda path: record(path, wall_seconds=1e6), "was altered"),
        (RUN / "training.provenance.json", lambda path: record(path, code={}), "names a code digest"),
        (RUN / "training.provenance.json", lambda path: path.write_text("{}"), "is no record of provenance"),
        (RUN / "training.provenance.json", lambda path: path.write_text("[1]"), "is no record of provenance"),
        (RUN / "training.provenance.json", lambda path: path.write_bytes(b"\xff"), "is not valid JSON"),
        (RUN / "training.json", lambda path: path.with_suffix(".provenance.json").unlink(), "belongs to no result"),
        (FITS / "b.npz", lambda path: path.write_text("more"), "belongs to no result"),
        (RESULTS / "notes.txt", lambda path: path.write_text("more"), "belongs to no result"),
        (
            FIGURE.with_suffix(".csv"),
            lambda path: path.with_suffix(".json").write_text("{"),
            "no result (as 1 more there)",
        ),
    ],
)
def test_whatever_does_not_fit_is_named(here: Path, path: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(path)
    assert [sentence for sentence in found() if path.name in sentence and words in sentence], found()


def test_results_travel_without_what_is_large(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert archive.pack(RESULTS, tmp_path / "toy.tar.gz") == 11
    before = {path: path.read_bytes() for path in archive.packed(RESULTS)}
    monkeypatch.chdir(tmp_path)
    assert archive.unpacked([tmp_path / "toy.tar.gz"])[1] == 11
    assert {path: path.read_bytes() for path in archive.packed(RESULTS)} == before
    assert found() == [] and not (RUN / "checkpoints").exists()
    assert sorted(path.name for path in Path("results").iterdir()) == ["toy"]
    with pytest.raises(UserError, match="results/toy exists already"):
        archive.unpacked([tmp_path / "toy.tar.gz"])[1]


OTHER = RESULTS / "digits/mlp8/true-labels/seed1"


@pytest.fixture
def apart(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Pack the runs of two seeds apart, as from two machines, and go elsewhere; `changes`: of the second one's configuration."""

    def pack(**changes: object) -> list[Path]:
        make(OTHER / "training.json", [OTHER / "checkpoints" / "step000000.pt"], [])
        archives = [tmp_path / f"seed{seed}.tar.gz" for seed in (0, 1)]
        for seed, path in enumerate(archives):
            config = load_overlays(ROOT / "config" / "demo.yaml") | {"seeds": [seed]} | (changes if seed else {})
            files.write_json(RESULTS / ".frozen.json", {"config": create(config).config, "code": "", "pieces": {}})
            archive.pack(RESULTS, path, [f"*/*/*/seed{seed}"])
        (tmp_path / "another").mkdir()
        monkeypatch.chdir(tmp_path / "another")
        return archives

    return pack


def test_runs_that_were_made_apart_are_unpacked_together(apart: Callable[..., list[Path]]) -> None:
    archives = apart()
    assert archive.unpacked(archives)[0] == RESULTS
    assert (RUN / "training.json").is_file() and (OTHER / "training.json").is_file()
    assert not (RESULTS / "figures").exists() and found() == []
    config = files.read_json(RESULTS / ".frozen.json")["config"]
    assert config["seeds"] == [0, 1] and {run["seeds"] == [0, 1] for run in config["runs"]} == {True}
    shutil.rmtree(RESULTS)
    assert archive.unpacked(archives[1:])[0] == RESULTS and not RUN.exists()


def test_of_one_result_made_twice_how_it_was_made_may_differ_but_not_what_it_is(
    apart: Callable[..., list[Path]], tmp_path: Path
) -> None:
    archives = apart()
    again = tmp_path / "again.tar.gz"
    archive.unpacked(archives[:1])
    record(RUN / "training.provenance.json", wall_seconds=1e6)
    archive_all(again)
    shutil.rmtree("results")
    archive.unpacked([archives[0], again])
    shutil.rmtree("results")
    archive.unpacked(archives[:1])
    (RUN / "training.json").write_text("{}")
    archive_all(again)
    shutil.rmtree("results")
    with pytest.raises(
        UserError, match=r"again\.tar\.gz holds .*training\.json, as another archive does, and they differ"
    ):
        archive.unpacked([archives[0], again])
    assert not Path("results").exists()


def archive_all(path: Path) -> None:
    """Write an archive of whatever lies there, checked by nobody."""
    with tarfile.open(path, "w:gz") as tar:
        for file in archive.packed(RESULTS):
            tar.add(file)


def test_archives_that_do_not_belong_together_are_refused(apart: Callable[..., list[Path]], tmp_path: Path) -> None:
    archives = apart(layer_input="mean")
    with pytest.raises(UserError, match=r"seed1\.tar\.gz has layer_input: 'mean', but .*seed0\.tar\.gz has 'pixels'"):
        archive.unpacked(archives)
    with pytest.raises(UserError, match=r"seed0\.tar\.gz holds no measures of fashion14/.*\(and of \d+ more runs\)"):
        archive.unpacked(archives[:1], whole=True)
    archive.unpacked(archives[:1])
    Path("results/toy").rename("results/other")
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as tar:
        tar.add("results/other/digits/mlp8/true-labels/seed0/training.provenance.json")
    shutil.rmtree("results")
    with pytest.raises(UserError, match=r"other\.tar\.gz holds results/other, and .*seed0\.tar\.gz results/toy"):
        archive.unpacked([archives[0], tmp_path / "other.tar.gz"])
    assert not Path("results").exists()


def test_what_runs_were_made_of_goes_along(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, labels = RESULTS / "digits/store/store.json", RESULTS / "digits/labels/true-labels/seed0/labels.json"
    make(store, [store.with_name("train_images.npy")], [])
    make(labels, [labels.with_name("labels.npy")], [store])
    make(OTHER / "training.json", [], [store, labels])
    archive.pack(RESULTS, tmp_path / "toy.tar.gz", ["*/*/*/seed1"])
    monkeypatch.chdir(tmp_path)
    archive.unpacked([tmp_path / "toy.tar.gz"])
    assert found() == [] and store.is_file() and labels.is_file() and not RUN.exists()


def test_a_part_is_packed_while_another_is_unfinished_or_damaged(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what travels is looked at, and all of that is."""
    make(OTHER / "training.json", [OTHER / "history.csv"], [])
    (RUN / "training.json").unlink()
    (RUN / "notes.txt").write_text("no result's")
    altered(FIGURE.with_suffix(".pdf"))
    with pytest.raises(UserError, match=r"is not packed, since .*training\.json, which is missing"):
        archive.pack(RESULTS, tmp_path / "whole.tar.gz")
    assert archive.pack(RESULTS, tmp_path / "part.tar.gz", ["*/*/*/seed1"]) == 4
    for path, damage, words in (
        (OTHER / "history.csv", altered, r"history\.csv is damaged"),
        (OTHER / "notes.txt", Path.touch, r"notes\.txt belongs to no result"),
    ):
        before = path.read_bytes() if path.exists() else None
        damage(path)
        with pytest.raises(UserError, match=rf"results/toy is not packed, since .*{words}"):
            archive.pack(RESULTS, tmp_path / "other.tar.gz", ["*/*/*/seed1"])
        path.unlink() if before is None else path.write_bytes(before)
    assert not (tmp_path / "whole.tar.gz").exists() and not (tmp_path / "other.tar.gz").exists()
    monkeypatch.chdir(tmp_path)
    archive.unpacked([tmp_path / "part.tar.gz"])
    assert found() == [] and (OTHER / "history.csv").is_file() and not RUN.exists()


def test_a_measure_that_shows_images_is_not_redrawn_from_parts(tmp_path: Path) -> None:
    made = create(load_overlays(ROOT / "config" / "demo.yaml"))
    files.write_json(tmp_path / ".frozen.json", {"config": made.config})
    for name in made.runs:
        files.write_json(tmp_path / name / archive.MEASURED, {})
    with pytest.raises(UserError, match=r"toy: `measures: \{\w+: true\}` is on, and what it shows needs images"):
        archive._refuse_a_lack(tmp_path, "toy")
    for measure in ("examples", "geometry", "rewind"):
        files.write_json(tmp_path / "measures" / f"{measure}.json", {})
    archive._refuse_a_lack(tmp_path, "toy")


@pytest.mark.parametrize("pattern", ["mnist", "figures", "measures/measures.csv", "../toy", "*/*/*/seed7"])
def test_a_pattern_that_names_no_runs_is_refused(here: Path, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="is no folder with results"):
        archive.pack(RESULTS, tmp_path / "toy.tar.gz", ["digits", pattern])
    assert not (tmp_path / "toy.tar.gz").exists()


def test_damaged_results_are_not_packed(here: Path, tmp_path: Path) -> None:
    (RUN / "checkpoints/step000000.pt").write_text("weights do not travel")
    archive.pack(RESULTS, tmp_path / "toy.tar.gz")
    altered(FIGURE.with_suffix(".pdf"))
    with pytest.raises(UserError, match=r"results/toy is not packed, since .*figure1\.pdf is damaged"):
        archive.pack(RESULTS, tmp_path / "new.tar.gz")
    assert not (tmp_path / "new.tar.gz").exists()


@pytest.mark.parametrize("name", ["elsewhere/toy", "results", "results/none", "results/toy/digits", "/results/toy"])
def test_only_an_experiment_is_packed(here: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is not an experiment's folder below results/"):
        archive.pack(Path(name), tmp_path / "toy.tar.gz")


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", content: bytes = b"", size: int = -1) -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content) if size < 0 else size
    return info, None if size >= 0 else io.BytesIO(content)


EVIL = {
    "a path that climbs": ([member("results/../x")], "no plain file below results/"),
    "an absolute path": ([member("/tmp/x")], "no plain file below results/"),
    "code": ([member("workflow/scripts/train.py")], "no plain file below results/"),
    "a file beside the experiments": ([member("results/x")], "no plain file below results/"),
    "a symbolic link": ([member("results/toy/x", tarfile.SYMTYPE, link="/etc")], "no plain file below results/"),
    "a hard link": ([member("results/toy/x", tarfile.LNKTYPE, link="/etc/passwd")], "no plain file below results/"),
    "a device": ([member("results/toy/x", tarfile.CHRTYPE)], "no plain file below results/"),
    "a pipe": ([member("results/toy/x", tarfile.FIFOTYPE)], "no plain file below results/"),
    "a folder": ([member("results/toy/x", tarfile.DIRTYPE)], "no plain file below results/"),
    "one name twice": ([member("results/toy/x"), member("results/toy/x")], "no plain file below results/"),
    "a lock of Snakemake's": ([member(".snakemake/locks/0.input.lock")], "no plain file below results/"),
    "two experiments": ([member("results/toy/x"), member("results/other/x")], "one experiment's results"),
    "nothing": ([], "one experiment's results"),
    "no provenance": ([member("results/toy/x")], "it holds no provenance"),
    "a record of Snakemake's": (
        [member("results/toy/x"), member(".snakemake/metadata/x")],
        "no plain file below results/",
    ),
    "more than the disk holds": ([member("results/toy/x", size=2**55)], "the disk has less free"),
}


@pytest.mark.parametrize("name", EVIL)
def test_what_pack_did_not_make_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    members, words = EVIL[name]
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, content)
            if content is not None:
                content.seek(0)
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    with pytest.raises(UserError, match=words) as caught:
        archive.unpacked([tmp_path / "evil.tar.gz"])
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "checkout").iterdir()) == []


@pytest.mark.parametrize("how", ["cut", "altered", "empty", "no archive", "missing"])
def test_a_damaged_archive_leaves_nothing(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    path = tmp_path / "toy.tar.gz"
    archive.pack(RESULTS, path)
    whole = path.read_bytes()
    content = {"cut": whole[: len(whole) // 2], "altered": bytearray(whole), "empty": b"", "no archive": b"text"}.get(
        how
    )
    if how == "altered":
        content[len(whole) // 2] ^= 0xFF
    path.unlink() if content is None else path.write_bytes(content)
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    with pytest.raises(UserError, match=r"could not be unpacked|does not exist|is damaged"):
        archive.unpacked([path])
    assert list((tmp_path / "checkout").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [(["verfiy"], "no subcommand 'verfiy' (did you mean 'verify'?)"), (["unpack", "none"], "none does")],
)
def test_the_tool_names_what_is_wrong_in_one_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "results.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ") and said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [["--help"], ["disk", "--help"], ["why", "--help"], ["disk"]],  # told at the end, and line by line
    ids=" ".join,
)
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(SCRIPTS / "results.py"), *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if words == ["disk"] else ""}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, ""), done.stderr


@pytest.mark.parametrize("command", ["", "verdicts", "why", "verify", "pack", "unpack", "disk", "compare"])
def test_every_subcommand_explains_itself(command: str) -> None:
    words = [sys.executable, SCRIPTS / "results.py", *filter(None, [command])]
    done = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False)
    assert f"results.py {command or 'verdicts'}" in done.stdout + done.stderr
