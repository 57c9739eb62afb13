"""The page's pieces: tables and figures that anyone can read, and the provenance run by run."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from dnn_or_knn.report import page
from dnn_or_knn.runtime import files
from matplotlib.figure import Figure

STYLE = (page.FOLDER / "page.css").read_text(encoding="utf-8")
RUN = "digits/lenet/true-labels/seed0"


def record(seconds: float, memory: float, **more: Any) -> dict[str, Any]:
    facts = {"wall_seconds": seconds, "peak_memory_bytes": memory * 1e6, "threads": 1, "libraries": {"numpy": "2"}}
    return {**facts, "device": "cpu", "git": {"commit": "0123456789abcdef", "dirty": False}, **more}


def write(results: Path, records: dict[str, dict[str, Any]]) -> None:
    for name, facts in records.items():
        path = results / f"{name}.provenance.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, facts)


def macro(name: str, *values: Any, **more: Any) -> str:
    """Return what one of the template's macros makes."""
    source = (page.FOLDER / "page.html.j2").read_text(encoding="utf-8")
    macros = source[: source.index("{%- set titles")]
    return str(getattr(page.template().environment.from_string(macros).module, name)(*values, **more))


def test_provenance_is_added_up_run_by_run(tmp_path):
    gpu = {"device": "cuda", "energy_joules": 1000.0, "peak_gpu_memory_bytes": 3e9}
    write(
        tmp_path,
        {
            f"{RUN}/training": record(10, 500, **gpu),
            f"{RUN}/features/steps000000-000010": record(2, 300),
            f"{RUN}/probes/knn/steps000000-000010": record(3, 700),
            f"{RUN}/probes/svm/steps000000-000010": record(4, 200),
            f"{RUN}/measures/measures": record(1, 100),
            "digits/labels/true-labels/seed0/labels": record(0.5, 50),
            "digits/store/store": record(0.5, 50),
            "claims/claims": record(5, 90),
            "report": record(100, 100),
        },
    )
    found = page.provenance(tmp_path)
    run, rest = [[str(value) for value in row] for row in found["runs"]]
    assert run == [RUN, "5", "10.0", "2.0", "7.0", "1.0", "1000", "700", "3000", "cpu, cuda"]
    assert rest == ["all else", "3", "–", "–", "–", "–", "–", "90", "–", "cpu"]
    jobs = found["jobs"]
    assert len(jobs) == 8 and jobs[0][0] == "claims/claims" and jobs[0][-1] == "0123456789"
    assert found["minutes"] == pytest.approx(26 / 60) and found["commits"] == "0123456789"


def test_code_that_was_changed_is_said(tmp_path):
    changed = {"git": {"commit": "0123456789abcdef", "dirty": True}}
    write(tmp_path, {f"{RUN}/training": record(1, 1, **changed), "claims/claims": record(1, 1)})
    assert page.provenance(tmp_path)["commits"] == "0123456789, 0123456789 + changes"


def test_table_has_a_caption_headings_and_a_name_for_its_box():
    said = page.verdict("em", "not supported", "<yes>")
    html = macro("table", "Verdicts & more", ["claim", "verdict"], [["1. <b>", said], ["2", None]])
    assert '<caption id="table-verdicts-more">Verdicts &amp; more</caption>' in html
    assert 'aria-labelledby="table-verdicts-more"' in html and 'tabindex="0"' in html
    assert html.count('scope="col"') == 2 and html.count('scope="row"') == 2
    assert "1. &lt;b&gt;" in html and '<em class="not-supported">&lt;yes&gt;</em>' in html and "None" not in html


def test_stacked_table_says_the_heading_in_every_cell_and_stays_a_table():
    html = macro("table", "Verdicts", ["claim", "verdict"], [["1", "yes"], ["2", "no"]], stacked=True)
    assert 'class="wide stacked"' in html and html.count('role="row"') == 2
    assert '<td role="cell" data-head="verdict">yes</td>' in html and '<table role="table">' in html
    assert macro("table", "Rows", ["a", "b"], [["1", "2"]]).count("data-head") == 0


@pytest.mark.parametrize(("width", "dpi"), [(7.0, 200), (3.85, 200), (7.0, 150)])
def test_figures_are_shown_at_one_scale(tmp_path, width, dpi):
    image, csv = tmp_path / "a.png", tmp_path / "a.csv"
    Figure(figsize=(width, 2)).savefig(image, dpi=dpi)
    Figure(figsize=(width, 2)).savefig(tmp_path / "a.pdf")
    csv.write_text("x\n1\n")
    assert page.inches(image) == pytest.approx(width, abs=0.01)
    facts = {"caption": "A <b>.", "alt": 'says "so"'}
    html = macro("figure", page.figure(tmp_path / "a.json", facts, " --configfile x.yaml"))
    assert re.search(rf'style="--inches: {width:.2f}"', html) and 'alt="says &#34;so&#34;"' in html
    assert '<a download="a.pdf" href="data:application/pdf;base64,' in html
    assert '<a download="a.csv" href="data:text/csv;base64,' in html and "A &lt;b&gt;." in html
    assert f"<code>snakemake --cores all {tmp_path.as_posix()}/a.json --configfile x.yaml</code>" in html


def test_large_table_is_compressed_in_the_page(tmp_path):
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    small.write_bytes(b"x\n" + b"1" * (page.LARGE_TABLE - 2))
    large.write_bytes(b"x\n" + b"1" * (page.LARGE_TABLE - 1))
    assert page.table_uri(small)[0] == "small.csv"
    name, address = page.table_uri(large)
    assert name == "large.csv.gz" and len(address) < 2000
    kind, _, data = address.partition(",")
    assert kind == "data:application/gzip;base64"
    assert gzip.decompress(base64.b64decode(data)) == large.read_bytes()
    assert page.table_uri(large)[1] == address  # the same bytes at any time


def luminance(colour: str) -> float:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.03928, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_all_text_has_contrast_on_both_grounds(place):
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[place]))
    for text in ("ink", "soft", "good", "bad", "open", "link"):
        for ground in ("paper", "box"):
            dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_page_opens_with_a_way_past_its_navigation_and_needs_no_network():
    source = (page.FOLDER / "page.html.j2").read_text(encoding="utf-8")
    assert source.index('href="#main"') < source.index('id="main"') and "<script" not in source
    assert "@media print" in STYLE and "prefers-color-scheme: dark" in STYLE
    assert re.findall(r"https?:[^\"]+", source + STYLE) == ["https://arxiv.org/abs/1805.06822"], (
        "the paper, a link to follow"
    )


def test_pictures_glare_in_no_dark_room_and_wide_things_say_so_in_a_narrow_window():
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\) \{ img \{ filter: invert", STYLE)
    narrow = STYLE[STYLE.index("@media (max-width: 40rem)") : STYLE.index("@media print")]
    assert "scroll sideways" in narrow and ".wide:not(.stacked)::before" in narrow


def test_page_answers_its_title_and_lists_what_each_run_came_to():
    measures, runs = synthetic.tables(datasets=("mnist", "cifar10"))
    found = page.ends(measures, runs)
    figures = {"architecture": "wrn-28-10", "true_labels": "true-labels", "random_labels": "random-labels"}
    said = page.answer(found, runs, figures)
    last = (
        measures[
            measures["layer"].eq("embedding") & measures["architecture"].eq("wrn-28-10") & measures["split"].eq("test")
        ]
        .groupby(["dataset", "labels", "model"])[["accuracy", "p_same"]]
        .last()
    )
    right = last["accuracy"].xs(("true-labels", "dnn"), level=[1, 2]).mean()
    alike = last["p_same"].xs(("random-labels", "knn"), level=[1, 2]).mean()
    assert said.startswith(
        f"Both: trained on true labels WRN-28-10 generalizes ({100 * right:.1f} % of the test images right)"
    )
    assert f"memorizes (100.0 % of the training images right) and answers as k-NN on {100 * alike:.0f} %" in said
    table = page.accuracies(found, runs)
    assert len(table["rows"]) == len(runs) == 10 and table["head"][1] == "DNN, train (%)"
    by_name = {row[0]: row for row in table["rows"]}
    assert (
        by_name["MNIST, WRN-28-10, random labels"][-1] == "20000"
        and by_name["MNIST, LeNet, true labels"][-1] == "never"
    )
    assert (
        by_name["CIFAR-10, WRN-28-10, true labels"][2]
        == f"{100 * last['accuracy']['cifar10', 'true-labels', 'dnn']:.1f}"
    )
    never = runs.assign(memorization_step=None)
    assert page.answer(found, never, figures).startswith("It generalizes: ")
    assert "WRN-28-10 does not memorize" in page.answer(found, never, figures)
    drawn = {name: {"missing": []} for name in page.FIGURES}
    assert page.gaps(measures, runs, 0.9995, drawn)["failed"] == []
    dead = runs.assign(final_train_accuracy=runs.final_train_accuracy.mask(runs.index == 0, 0.1))
    assert page.gaps(measures, dead, 0.9995, drawn)["failed"] == ["mnist/wrn-28-10/true-labels/seed0"]
    two = runs.assign(classes=2)
    assert page.answer(found, two, figures).startswith("Both: ")
    other = figures | {"architecture": "vit"}
    assert page.answer(found, runs, other) == "No run of this experiment could tell."
