"""Who reads a shard's features, and when they go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dnn_or_knn.features import dumps

RUN = Path("digits/mlp8/true-labels/seed0")


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """The manifests of two shards whose features lie on disk, to be read by two probes."""
    made = [tmp_path / RUN / "features" / f"{name}.json" for name in ("steps000000-000010", "layers000010")]
    for manifest in made:
        dumps.folder_of(manifest).mkdir(parents=True)
        (dumps.folder_of(manifest) / "a.npy").touch()
        manifest.touch()
        dumps.await_readers(manifest, ["knn", "svm"])
    return made


def test_features_go_with_the_last_mark_and_their_manifest_stays(tmp_path: Path, shards: list[Path]) -> None:
    first, second = shards
    assert dumps.marked(tmp_path) == sorted(shards) and dumps.there(tmp_path) == sorted(map(dumps.folder_of, shards))
    dumps.done_reading(first, "svm")
    dumps.done_reading(first, "unknown")
    assert dumps.folder_of(first).is_dir()
    dumps.done_reading(first, "knn")
    assert not dumps.folder_of(first).exists() and first.is_file()
    assert dumps.marked(tmp_path) == [second] and dumps.there(tmp_path) == [dumps.folder_of(second)]
    left = {path.name for path in first.parent.iterdir()}
    assert left == {first.name, second.name, second.stem, dumps.marks_of(second).name}


def test_features_made_again_are_left_for_others_that_read_them(tmp_path: Path, shards: list[Path]) -> None:
    first, second = shards
    for manifest in shards:
        for reader in ("knn", "svm"):
            dumps.done_reading(manifest, reader)
    assert not dumps.there(tmp_path) and not dumps.marked(tmp_path)
    dumps.await_again(
        [(first, "lr"), (first, "knn--pca"), (second, "lr"), (tmp_path / RUN / "features/none.json", "lr")]
    )
    assert dumps.marked(tmp_path) == [first]  # of the second, one alone will read it
    made = tmp_path / "again" / first.stem
    made.mkdir(parents=True)
    (made / "a.npy").write_text("lr's")
    assert dumps._left(made, dumps.folder_of(first)) == dumps.folder_of(first)
    late = tmp_path / "late" / first.stem
    late.mkdir(parents=True)
    (late / "a.npy").write_text("knn's")
    assert dumps._left(late, dumps.folder_of(first)) == late  # both read what they made
    assert (dumps.folder_of(first) / "a.npy").read_text() == "lr's"
    assert dumps.release(tmp_path, {(first, "lr")}) == [] and dumps.folder_of(first).is_dir()
    dumps.done_reading(first, "lr")
    assert not dumps.there(tmp_path) and not dumps.marked(tmp_path)


def test_marks_of_features_that_are_gone_are_no_released_features(tmp_path: Path, shards: list[Path]) -> None:
    shutil.rmtree(dumps.folder_of(shards[0]))
    assert dumps.release(tmp_path, set()) == [dumps.folder_of(shards[1])] and not dumps.marked(tmp_path)


def test_features_that_nobody_marked_are_kept(tmp_path: Path, shards: list[Path]) -> None:
    dumps.await_readers(shards[0], [])
    dumps.done_reading(shards[0], "knn")
    assert dumps.folder_of(shards[0]).is_dir() and dumps.marked(tmp_path) == [shards[1]]


def test_marks_of_probes_that_will_not_run_are_taken_away(tmp_path: Path, shards: list[Path]) -> None:
    first, second = shards
    assert dumps.release(tmp_path, {(second, "svm")}) == [dumps.folder_of(first)]
    assert not dumps.folder_of(first).exists()
    assert dumps.folder_of(second).is_dir() and [path.name for path in dumps.marks_of(second).iterdir()] == ["svm"]
    dumps.release_all(tmp_path, {tmp_path / RUN})
    assert dumps.folder_of(second).is_dir() and dumps.marked(tmp_path) == [second]
    dumps.release_all(tmp_path)
    assert not dumps.there(tmp_path) and not dumps.marked(tmp_path) and second.is_file()
