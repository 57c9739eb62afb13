"""The digest of the code that a job runs: what it computes. Comments, formatting and docstrings do not count.

Nor does how it runs: the packages in `NOT_CODE` take no part in what a result holds.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SCRIPTS = PACKAGE.parent
#: What is no job's code. `runtime`: how any job runs. The registry: tables; what a job takes from them is in its
#: specification, so that a new entry makes nothing stale.
NOT_CODE = {PACKAGE / "runtime", PACKAGE / "plan" / "registry.py"}
#: Edits that only opened a door: what is behind it is loaded by name, and its module stands in the specification of each job
#: that asks for it. The others compute what they did, so the file counts as it was before. Or edits that reach a certified optimum
#: another way where the old one took hours: what was found there holds. Digest of the file now → before.
SAME: dict[str, str] = {
    # measures/evaluation.py: votes by similarity; an order of layers that is told
    "1f31ecd506efb1f11c303aade82b2135e6b14ca4d78332f20e3311ff5af2072c": "f19609405ed0c1ca4c7ee72debd0254bcb3ff4b12517f1770493e181bc397ac3",
    # measures/alone.py: an order of layers that is told
    "a94d7324f45ee1f25a3d614bdc5b41f0c57b81fcce5d298ee06726dc54491ff2": "a9b36bd5e330bc31afb337c8a6fe57da75070ce0951e4d8e26998e2552eb04be",
    # training/job.py: images that stay on disk
    "ca995aab668de8ac4bc44b5f41dbb95cb48029e4d98cba63ba5d849338c19528": "5dac018d7660b6893a4bd82ab1841e81d431e19b70777d3f4e99c1b0ef2a0db9",
    # training/step.py: a network's own normalization
    "f798e1f7a290225d7129e10748199c74d75615286978288fcdd2f53bf75afcb6": "c52b818cc46e6036be08847237be2b4403b0b6b5051fbb0e44744c190c62902f",
    # features/job.py: images that stay on disk
    "d5e77872586f72c433d3cb432bda8e6d68c9f128e53ce83e2d61d01da5269103": "1cd24561c33a8749149b9fe5819fe68cef339be165c2b72dd48b6b420bb5dcd3",
    # features/extraction.py: both; batches of large images
    "aa9c18997540a59b71926e18551309ce4585d84f035a33445a48f8e2e743e8ee": "11258f422784985cd852165b82ac896b2017639822665877d21940c3a624a1ee",
    # atlas/rewind.py: batches of large images
    "60e1c174d8e0fc02ce1b1bba6e79a0f09232b220675090e2c902a9b561aed7c8": "b5bc7de5c21f9d166fe8aa4ccaa10b6b662ac9d26c434d152135700b6cab01cc",
    # features/dumps.py: a sentence about given features, runs whose features stay, features left for others
    "738129ef10c2319ca90f96fa411908a771cbe88920cfdc630494d679d3dab146": "6f43a09c9d03e7b67f1559cda2d006d15d024329d478dd833f9b634064ced6df",
    # data/downloads.py: unpacked files without a checksum
    "9f44b420a3819ae0ef3953003923cfe64e21a64f1330b3bca2d48393245fccdb": "3d76c44a84d73aac5ff302ccd87924d751d38d040a498eb78b1d1de911869cc6",
    # data/loaders/common.py: pictures decoded while they are written
    "9c10f8a0e4839650e8f9b92294cdc5e52a70e95420b0d27917e1030c3c72092b": "c314aad342c433783a49a923d2cb05fb52eac0c2880776ca524c3b7e117eb86c",
    # figure.py: titles
    "bef8576a9d12d4ab3d1daf8a65cffaf1161c8ba79a1518cd1789895fe408cfca": "2121cfa355d750b9e19f51e7f6c4ad232daeea1f76243df7e6aa0dec6e03e687",
    # training_curves.py: titles
    "40e211035240637356423edb87b53483ee4244fdfd96c7cc04e3c5faee3f3326": "084fe0dfe949a49a750689e999af2f7743bb1d02786ad5f65e459492c63ab29c",
    # measures.py: runs without a network's outputs
    "ab377c92e21e1a4e99d2873fd0ffcefb843e1514839e4deee35b51e68dd11009": "b6f81feb586e07d83a0be7d20f9c3896de9f1664ebbfbb4ab824329d468ff695",
    # atlas/job.py: features made again that are left for others
    "038fb314ae3c045a52646412759994940e722a77ca04df17f30b1f9939ae6af7": "595fa833c888e404d585720a2919318a0c71571bc48b80fa6e80d515ce4eee23",
    # probe.py: a k-NN search in pieces
    "17bb7d62e1b075437c08e6e51ee8663ff135b88b9dd232a8556809ffeb51f283": "6de7c7ba127bc5b1bc594ce325ec5a18a2cd962ac75647198ad61c5b4976efa8",
    # probes/job.py: the same; features mapped into memory
    "efa7761d766f931da20c88cb1e9e4933c002cf94aaa758fa0f9f0989789751b4": "0294f8750273a1506207ec7282e8a618091ce14e4149808c3ea301ddd047a1e9",
    # probes/knn.py: the same
    "800e121cf855c3c5f76cb0e304d68994047252442dc0b5e262418099596635de": "c9ef426334946dd5e2577919b37fc241388ef804189a31f27e8056563d9e0172",
    # probes/svm.py: less memory; a Gram matrix once; fits of more than half an hour by products with the points, to the same certificate
    "61d6e37d67b9322194b01965bd17c450569cdefe1f4f641b6bfa653e7716a394": "b0c4f6f6d7b125d030205c8ff0cc6a8f43540fa37b7d2786cf942ff83ee8ae7f",
    # probes/solvers/svm.py: the same
    "fa7f77c8c0dc10df745958410264316b2c808ebedf1d982b08d058c7d1442ae6": "b65b50989d411368fcfc23a8d2fff68453aabf78456770a3c45fb7a36308cd63",
    # probes/solvers/svm_problem.py: the same
    "4a4fc8a39b7b4ed3f2779f50e7853b10c41c1f8c03eef5e7091c1cb010bcd7ae": "1214cabab93fe895448642534b68cad4e1bc8bc7034a5040e479cedb49a64a8c",
    # probes/solvers/svm_newton.py: the same
    "d5e224ad86f2263bbd1899c800bd096a884c5a2588194b2e6a8c955f140cee8e": "b3f23fea3dd13d835a2b1ddef1b40e7610d6c2118a8817a278c8b3f4b65e0fa5",
    # probes/logistic.py: less memory
    "ee6301467013d029bba6a48aab2838b195b2e0d6ee8756aa3b6ad1e2f2f90c79": "8e9ec2db759840bf4da833c5ff50628d72194d1c76315d4ec5463807e0437953",
    # probes/solvers/softmax_problem.py: the same
    "4c85cdf88a609731de93bb1d509377b7a7773d3638f94e6890762415c2d1e0ec": "f6b0b224a6575eee30bc3334140f3364fe4a273c83c7eefb919b3ef93fba15e3",
    # probes/solvers/multinomial.py: the same
    "d64951ad8b1c412dca13978cd5e77e947f032319eebdc021f619818cf2a70e75": "756e3c71c25c682a65dffa74c80200a3460bc5c4643e0a85b0cbdf81ddc54230",
}


@functools.cache
def code_digest(*entries: str) -> str:
    """Return the digest of some files and of every module of this project that they import, however deep.

    Parameters
    ----------
    entries: paths relative to `workflow/scripts`, such as ``"train.py"`` or ``"dnn_or_knn/networks/wrn.py"``.
    """
    return digest_of(code_files(*entries))


def digest_of(files: Mapping[str, str]) -> str:
    """Return the one digest of some files' digests by name."""
    lines = [f"{name} {files[name]}" for name in sorted(files, key=Path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def code_files(*entries: str) -> dict[str, str]:
    """Return ``{file: digest}``, sorted, of some files and of all that they import of this project."""
    seen: dict[Path, str] = {}
    waiting = [SCRIPTS / entry for entry in entries]
    while waiting:
        path = waiting.pop()
        if path in seen or not NOT_CODE.isdisjoint((path, *path.parents)):
            continue
        digest, imports = _meaning(path)
        seen[path] = SAME.get(digest, digest)
        waiting.extend([*imports, *_packages(path)])
    return {path.relative_to(SCRIPTS).as_posix(): seen[path] for path in sorted(seen)}


def runtime_digest() -> str:
    """Return the digest of the code that says how jobs run, which no job's own digest holds."""
    return digest_of({path.name: _meaning(path)[0] for path in Path(__file__).parent.glob("*.py")})


@functools.cache
def _meaning(path: Path) -> tuple[str, list[Path]]:
    """Return one file's digest over its syntax tree, and the project files that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    imports = [found for node in ast.walk(tree) for found in _imported(node, path)]
    return hashlib.sha256(_text(tree).encode()).hexdigest(), imports


def _text(node: object) -> str:
    """Return a syntax tree as text, the same on every Python: empty fields and docstrings left out."""
    if isinstance(node, list):
        return "[" + ",".join(_text(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if value not in (None, []) and name not in ("type_comment", "kind"):
            fields.append(f"{name}={_text(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _packages(path: Path) -> list[Path]:
    """Return the `__init__.py` of every package around a file: importing the file runs them first."""
    folders = [folder for folder in path.parents if SCRIPTS in folder.parents]
    return [folder / "__init__.py" for folder in folders if (folder / "__init__.py").is_file()]


def _imported(node: ast.AST, path: Path) -> list[Path]:
    """Return the files of this project that one import statement names."""
    if isinstance(node, ast.Import):
        dotted = [alias.name for alias in node.names]
        bases = [SCRIPTS / name.replace(".", "/") for name in dotted]
    elif isinstance(node, ast.ImportFrom):
        base = path.parents[node.level - 1] if node.level else SCRIPTS
        base = base / (node.module or "").replace(".", "/")
        bases = [base, *(base / alias.name for alias in node.names)]
    else:
        return []
    files = [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]
    return [file for file in files if file.is_file() and SCRIPTS in file.parents]
