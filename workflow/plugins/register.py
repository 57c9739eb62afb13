"""Let Snakemake find the logger plugin beside this file: `python workflow/plugins/register.py`, once an environment.

Snakemake looks for plugins on Python's path alone; this puts the folder there, by a `.pth` file of the environment.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path


def main() -> None:
    """Write the `.pth` file."""
    folder = Path(__file__).resolve().parent
    (Path(sysconfig.get_path("purelib")) / "dnn_or_knn.pth").write_text(f"{folder}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
