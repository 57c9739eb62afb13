"""How figures look: style, names, curves, insets, the legend, and files whose bytes depend on nothing else."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dnn_or_knn.claims.words import NOT_SUPPORTED, SUPPORTED, VERDICTS
from dnn_or_knn.figures import insets, style, words
from dnn_or_knn.figures.style import Look
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

STYLE = style.style({})
WHITE = np.array([0.9505, 1.0, 1.089])


#: What a deuteranope sees of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
DEUTERANOPE = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def linear(colour: str) -> np.ndarray:
    """Return a colour's linear RGB."""
    return np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, 0 black, 1 white."""
    return float(np.dot([0.2126, 0.7152, 0.0722], linear(colour)))


def lab(rgb: np.ndarray) -> np.ndarray:
    """Return linear RGB as CIELAB under D65, in which a distance of 2 can just be seen."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    x, y, z = np.where(xyz > 0.008856 * WHITE, np.cbrt(xyz / WHITE), 7.787 * xyz / WHITE + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def rows(y: Any, *, seeds: int = 1, converged: Any = True) -> pd.DataFrame:
    """Return a curve's rows: `y` for every seed, moved up by one for each further seed."""
    parts = [
        pd.DataFrame(
            {"x": np.arange(len(y)) * 10.0, "y": np.asarray(y, float) + seed, "seed": seed, "converged": converged}
        )
        for seed in range(seeds)
    ]
    return pd.concat(parts, ignore_index=True)


def by_gid(figure: Figure, gid: str) -> Any:
    """Return the artists with a name."""
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def test_style_fills_in_defaults() -> None:
    assert style.style({"style": {"width": 5.0}}) == {**style.STYLE, "width": 5.0}
    assert style.style({}) == style.STYLE


def test_names_as_print_shows_them() -> None:
    assert [words.dataset_title(name) for name in ("mnist", "cifar10", "cifar100", "digits", "svhn")] == [
        *("MNIST", "CIFAR-10", "CIFAR-100", "Digits", "svhn")
    ]
    assert [words.architecture_title(name) for name in ("wrn-28-10", "lenet", "mlp640", "vit")] == [
        *("WRN-28-10", "LeNet", "MLP-640", "vit")
    ]
    assert [words.model_title(name) for name in ("dnn", "knn", "svm", "lr", "knn-l1", "tree")] == [
        *("DNN", "k-NN", "SVM", "LR", "k-NN (l1)", "tree")
    ]


def test_colours_are_the_papers_and_differ_in_grey() -> None:
    red, green, blue = (np.array(to_rgb(style.COLOURS[name])) for name in ("knn", "lr", "svm"))
    everything = [*style.COLOURS.values(), *style.MORE_COLOURS, *style.ARCHITECTURE_COLOURS, style.GREY, style.LIGHT]
    assert min(1.05 / (luminance(colour) + 0.05) for colour in everything) >= 3, "too pale on white"
    assert style.COLOURS["dnn"] == "#000000"
    assert red.argmax() == 0 and green.argmax() == 1 and blue.argmax() == 2
    decided = [VERDICTS[word].colour for word in (SUPPORTED, NOT_SUPPORTED)]
    assert len({look.marker for look in VERDICTS.values()}) >= 3
    assert min(1.05 / (luminance(look.colour) + 0.05) for look in VERDICTS.values()) >= 4.5, "they are words, too"
    for colours, least in (
        (list(style.COLOURS.values()), 0.09),
        (list(style.ARCHITECTURE_COLOURS[:3]), 0.09),
        (decided, 0.07),
    ):
        grey = sorted(luminance(colour) ** (1 / 2.2) for colour in colours)
        assert min(np.diff(grey)) > least, "two curves would have one grey"
        for simulated in (np.eye(3), DEUTERANOPE):
            seen = [lab(simulated @ linear(colour)) for colour in colours]
            distances = [np.linalg.norm(one - other) for one, other in combinations(seen, 2)]
            assert min(distances) > 30, "two curves would have one colour"
    assert not set(style.COLOURS.values()) & set(style.ARCHITECTURE_COLOURS)
    assert len(set(style.MARKERS.values())) == len(style.MARKERS)


def test_a_model_beyond_the_papers_gets_a_look_of_its_own() -> None:
    probes = ["knn", "tree", "svm", "bayes"]
    looks = [style.model_look(name, probes) for name in probes]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 4


def test_one_seed_is_a_line_through_its_points() -> None:
    with style.applied(STYLE):
        figure = style.new_figure(3, 2)
        ax = figure.add_subplot()
        table = rows([1.0, 4.0, 2.0]).sample(frac=1, random_state=0)
        style.curve(ax, table, Look("#123456", "o"), gid="a")
    (line,) = by_gid(figure, "a")
    assert line.get_xdata().tolist() == [0, 10, 20] and line.get_ydata().tolist() == [1, 4, 2]
    assert to_hex(line.get_color()) == "#123456" and not line.is_dashed()
    assert not ax.collections


def test_several_seeds_are_mean_and_band() -> None:
    with style.applied(STYLE):
        figure = style.new_figure(3, 2)
        ax = figure.add_subplot()
        style.curve(ax, rows([1.0, 4.0, 2.0], seeds=3), Look("#123456", "o", dashed=True), gid="a")
    (line,) = by_gid(figure, "a")
    (shade,) = by_gid(figure, "a/band")
    assert line.get_ydata().tolist() == [2, 5, 3] and line.is_dashed()
    edges = shade.get_paths()[0].vertices
    at_first = edges[edges[:, 0] == 0][:, 1]
    assert (at_first.min(), at_first.max()) == pytest.approx((1, 3))


def test_fits_that_did_not_converge_are_hollow() -> None:
    with style.applied(STYLE):
        figure = style.new_figure(3, 2)
        table = rows([1.0, 4.0, 2.0], converged=[True, False, True])
        style.curve(figure.add_subplot(), table, Look("#123456", "s"), gid="a")
    (hollow,) = by_gid(figure, "a/not converged")
    assert hollow.get_xdata().tolist() == [10] and hollow.get_ydata().tolist() == [4]
    assert hollow.get_markerfacecolor() == "white" and hollow.get_marker() == "s"


def test_memorization_line_runs_through_all_panels_of_a_column() -> None:
    with style.applied(STYLE):
        figure = style.new_figure(3, 3)
        axes = [figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)]
        for ax in axes:
            ax.set_xlim(0, 100)
        style.memorization(axes, [40.0, 50.0])
    lines = by_gid(figure, "memorization")
    assert [line.axes for line in lines] == axes
    assert all(set(line.get_xdata()) == {45} and line.is_dashed() for line in lines)
    assert len(by_gid(figure, "memorization/band")) == 2
    (text,) = by_gid(figure, "memorization/step")
    assert text.get_text() == "steps 40 to 50" and text.axes is axes[0]


@given(st.integers(0, 1000), st.integers(2, 4), st.booleans())
@settings(deadline=None, max_examples=40)
def test_an_inset_never_covers_a_curve(seed: int, count: int, wild: bool) -> None:
    rng = np.random.default_rng(seed)
    x = np.linspace(0.04, 0.96, 30)
    curves = []
    for _ in range(count):
        rise = 1 - np.exp(-x * rng.uniform(1, 30))
        y = rng.uniform(0, 1, 30) if wild else rng.uniform(0.1, 0.4) + rise * rng.uniform(0.1, 0.5)
        curves.append((x, y))
    place = insets.free_place(curves, (0.12, 0.05), [0.7] if wild else [])
    if place is None:
        return
    left, low, width, height = place
    assert not (wild and left - 0.12 < 0.7 < left + width), "the memorization line stays uncovered"
    assert left >= 0.12 and low >= 0.05 and left + width <= 1 and low + height <= 1
    dense = np.linspace(0.04, 0.96, 2000)
    for _, y in curves:
        at = np.interp(dense, x, y)
        covered = (dense > left - 0.12) & (dense < left + width) & (at > low - 0.05) & (at < low + height)
        assert not covered.any()


@pytest.mark.parametrize(
    ("distance", "least", "length", "opens"),
    [(0.5, 0.4, 40, True), (0.5, 0.6, 40, False), (30.0, 0.0, 40, False), (0.5, 0.0, 25, False)],
)
def test_an_inset_opens_only_where_whole_curves_lie_on_each_other_but_differ(
    distance: float, least: float, length: int, opens: bool
) -> None:
    x = np.arange(40.0)
    curves = [(x, 60 * (1 - np.exp(-x / 2)) + shift) for shift in (0.0, distance)]
    with style.applied(STYLE):
        figure = style.new_figure(3, 2)
        ax = figure.add_subplot()
        for number, (_, y) in enumerate(curves):
            style.curve(ax, rows(y), Look("#123456", "o"), gid=f"{number}")
        curves = [(x * 10, curves[0][1]), (x[:length] * 10, curves[1][1][:length])]
        style.settle(figure)
        child = insets.inset(ax, curves, (0.1, 0.05), least)
    assert (child is not None) == opens
    if child is not None:
        low, high = child.get_ylim()
        assert low < 60 < 60 + distance < high and high - low < 5
        assert len(child.get_xticks()) >= 2 and child.xaxis.get_tick_params()["labelbottom"]
        for number in range(2):
            (copy,) = by_gid(figure, f"inset/{number}")
            (line,) = by_gid(figure, str(number))
            assert copy.get_ydata().tolist() == line.get_ydata().tolist()


def test_the_first_evaluation_is_cut_off_only_if_it_dwarfs_the_rest_and_then_said() -> None:
    x = np.arange(4.0)
    plain, dwarfing = np.array([20.0, 10, 9, 8]), np.array([900.0, 10, 9, 8])
    assert style.top_of([(x, plain)]) is None
    top = style.top_of([(x, dwarfing), (x, plain)])
    assert top == pytest.approx(11)
    with style.applied(STYLE):
        ax, other = Figure().add_subplot(), Figure().add_subplot()
        style.say_what_is_cut(ax, [(x, dwarfing)], 11)
        style.say_what_is_cut(other, [(x, np.minimum(plain, 11))], 11)
    assert ax.texts[0].get_text() == "↑ 900 at step 0"
    assert not other.texts


@pytest.mark.parametrize("width", [2.5, 7.0])
def test_the_legend_fits_the_figure(width: float) -> None:
    with style.applied(STYLE):
        figure = style.new_figure(width, 3)
        figure.add_subplot()
        handles = [style.handle(f"a label of some length {i}", Look("#000000", "o")) for i in range(6)]
        made = style.legend(figure, handles)
        style.settle(figure)
        assert made.get_window_extent().width <= figure.bbox.width
    assert [text.get_text() for text in made.get_texts()] == [handle.get_label() for handle in handles]
    assert len(figure.legends) == 1


def _saved(folder: Path) -> list[Path]:
    with style.applied(STYLE):
        figure = style.new_figure(3, 2)
        style.curve(figure.add_subplot(), rows([1, 2, 3], seeds=2), Look("#123456", "o"), gid="a")
        style.settle(figure)
        return style.save(figure, folder / "x", rows([1, 2, 3]), dpi=100)


def test_saving_twice_gives_the_same_bytes_without_dates(tmp_path: Path) -> None:
    first, second = _saved(tmp_path / "a"), _saved(tmp_path / "b")
    assert [path.name for path in first] == ["x.pdf", "x.png", "x.csv"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    pdf, png = first[0].read_bytes(), first[1].read_bytes()
    assert b"CreationDate" not in pdf and b"matplotlib" not in pdf.lower() and b"tIME" not in png
    with Image.open(first[1]) as drawn:
        assert drawn.mode == "P" and drawn.size == (300, 200) and round(drawn.info["dpi"][0]) == 100
        assert (0x12, 0x34, 0x56) in {colour for _, colour in drawn.convert("RGB").getcolors()}
    assert b"Type42" in pdf or b"/FontFile2" in pdf, "fonts are not embedded as TrueType"
    assert b"/Type3" not in pdf
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["x.csv", "x.pdf", "x.png"]


def test_photographs_keep_their_colours(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    with style.applied(STYLE):
        figure = style.new_figure(3, 2)
        figure.add_subplot().imshow(pixels, interpolation="none")
        _, png, _ = style.save(figure, tmp_path / "x", rows([1]), dpi=100)
    with Image.open(png) as drawn:
        assert len(drawn.convert("RGB").getcolors(maxcolors=10**6)) > 2000


def test_settings_of_the_machine_change_nothing_and_come_back(tmp_path: Path) -> None:
    import matplotlib

    first = _saved(tmp_path / "a")[1].read_bytes()
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "lines.linewidth": 9}):
        second = _saved(tmp_path / "b")[1].read_bytes()
        assert matplotlib.rcParams["font.size"] == 20
    assert first == second


def test_text_is_at_least_seven_points() -> None:
    for size in (7.0, 8.0):
        with style.applied(style.style({"style": {"font_size": size}})):
            figure = style.new_figure(3, 2)
            ax = figure.add_subplot()
            style.memorization([ax], [0.5])
            style.message(ax, "nothing")
            style.panel_letter(ax, "a")
            sizes = [text.get_fontsize() for text in [*ax.texts, *ax.get_xticklabels(), ax.xaxis.label]]
        assert min(sizes) >= 7 and max(sizes) <= 9
