"""The pieces of a self-contained HTML page: no scripts, no network, light and dark, desktop, phone and paper."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --ink: #1a1c1f; --soft: #5b6068; --line: #d8dbe0; --paper: #ffffff; --box: #f5f6f8;
  --good: #11663c; --bad: #a3201b; --open: #7a5200; --link: #0b57b7; --inch: 8.5rem; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a3a9b3; --line: #3a3f47; --paper: #15171a;
  --box: #1f2226; --good: #6bd19c; --bad: #ff938c; --open: #f0c060; --link: #8ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin-top: 2rem; } a { color: var(--link); } p.soft, figcaption, .soft { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; list-style: none; }
.skip { position: absolute; left: -99rem; padding: .5rem 1rem; background: var(--paper); }
.skip:focus { left: 1rem; top: .5rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
main:focus { outline: none; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; } thead th { background: var(--box); vertical-align: bottom; }
.supported { color: var(--good); font-weight: 600; } .not-supported { color: var(--bad); font-weight: 600; }
.inconclusive, .too-small { color: var(--open); font-weight: 600; }
figure { margin: 1rem 0; } figure .wide { width: fit-content; max-width: 100%; background: #fff; margin-bottom: .5rem; }
img { display: block; height: auto; width: calc(var(--inches) * var(--inch)); max-width: 100%; }
pre { overflow-x: auto; background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .8rem;
  font-size: .85rem; } code { font-size: .9em; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: .3rem 0; }
@media (max-width: 40rem) { :root { --inch: 5.6rem; } img { max-width: none; }
  table { font-size: .8rem; } th, td { padding: .3rem .4rem; }
  .stacked table { font-size: .95rem; } .stacked :is(tbody, tr, th, td) { display: block; } .stacked thead { display: none; }
  .stacked tr > * { border: 0; } .stacked tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
  .stacked td::before { content: attr(data-head) ": "; color: var(--soft); } }
@media print { :root { color-scheme: light; --inch: 1in; --ink: #000; --soft: #444; --paper: #fff; --box: #f5f6f8;
  --line: #ccc; --good: #11663c; --bad: #a3201b; --open: #7a5200; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav, .skip { display: none; } table { font-size: 8pt; }
  figure, tr { break-inside: avoid; } h2, h3, summary { break-after: avoid; } thead { display: table-header-group; }
  img { max-width: min(100%, calc(var(--inches) * var(--inch))); max-height: 21cm; width: auto; } .wide { overflow: visible; }
  details.printed::details-content { content-visibility: visible; block-size: auto; } }
"""


def page(title: str, body: str) -> str:
    """Return a whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the verdicts</a>\n{body}\n</body>\n</html>\n'
    )


def text(value: object) -> str:
    """Return a value as HTML text; `code` in backquotes and **bold** are kept."""
    escaped = html.escape(str(value))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, stacked: bool = False) -> str:
    """Return a table in a box that scrolls sideways (by keyboard too) where the window is narrow.

    The caption is for screen readers, and names the box: no two tables of a page may have the same. A cell that is
    `Raw` is put in as it is. With `stacked` the cells of a row stand below each other in a narrow window; the roles
    keep it a table for screen readers then.
    """
    role = {
        name: f' role="{name}"' if stacked else "" for name in ("table", "row", "columnheader", "rowheader", "cell")
    }
    heads = "".join(f'<th scope="col"{role["columnheader"]}>{text(name)}</th>' for name in head)
    lines = []
    for first, *rest in rows:
        cells = ""
        for name, value in zip(head[1:], rest, strict=True):
            said = f' data-head="{html.escape(name, quote=True)}"' if stacked else ""
            cells += f"<td{role['cell']}{said}>{_cell(value)}</td>"
        lines.append(f'<tr{role["row"]}><th scope="row"{role["rowheader"]}>{_cell(first)}</th>{cells}</tr>')
    name = "table-" + re.sub(r"\W+", "-", caption.lower())
    return (
        f'<div class="wide{" stacked" if stacked else ""}" role="region" tabindex="0" aria-labelledby="{name}">'
        f'<table{role["table"]}><caption id="{name}">{text(caption)}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


class Raw(str):
    """HTML that is already made."""


def _cell(value: object) -> str:
    return value if isinstance(value, Raw) else text("" if value is None else value)


def data_uri(path: Path, kind: str) -> str:
    """Return a file as a data: address."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def figure(identifier: str, image: Path, caption: str, alt: str, csv: Path, command: str) -> str:
    """Return a figure with its caption, its numbers to download, and the command that makes it again.

    It is shown at one scale with all others, and scrolls sideways (by keyboard too) where the window is narrow.
    """
    shown = html.escape(alt, quote=True)
    return (
        f'<figure id="{identifier}"><div class="wide" role="group" tabindex="0" aria-label="Picture of {identifier}">'
        f'<img src="{data_uri(image, "image/png")}" alt="{shown}" style="--inches: {inches(image):.2f}"></div>'
        f'<figcaption>{text(caption)}<br><a download="{csv.name}" href="{data_uri(csv, "text/csv")}">{csv.name}</a>'
        f" (the numbers) · again: <code>{html.escape(command)}</code></figcaption></figure>"
    )


def inches(image: Path) -> float:
    """Return the width of a PNG in inches, by the resolution that it states (200 dots per inch if none)."""
    data = image.read_bytes()
    pixels = int.from_bytes(data[16:20])
    stated = data.find(b"pHYs")
    return pixels / (int.from_bytes(data[stated + 4 : stated + 8]) * 0.0254 if stated > 0 else 200)


def details(summary: str, body: str, *, printed: bool = False) -> str:
    """Return something folded away, on paper too unless `printed`."""
    kind = ' class="printed"' if printed else ""
    return f"<details{kind}><summary>{text(summary)}</summary>{body}</details>"
