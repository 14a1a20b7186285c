"""The rules of the house: who may import whom, one layer one room, equal backends, sizes, links, nothing dangerous."""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest
from dangers import dangers

from minialex import backends
from minialex.backends.signatures import OPS, STEMS
from minialex.nets import RECIPES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minialex"

# Module (or package) -> what of minialex it may import.  Every module needs an entry here, or below one.
FLOOR_0 = ("spec", "files", "philox", "bf16")
FLOOR_1 = ("spec", "layers")
FLOOR_2 = (*FLOOR_1, "nets", "columns")
FLOOR_3 = (*FLOOR_0, *FLOOR_2, "memory", "exchange", "upload", "branch", "fuse", "net", "column_net")
FLOOR_4 = (*FLOOR_3, "progress", "config", "optim", "data", "checkpoint", "distributed")
FLOOR_5 = (*FLOOR_4, "graph", "backends", "placement", "evaluate", "predictions", "predict", "journal", "rundir", "initial", "figures",
           "interop", "retrieval", "statistics", "tensorboard", "observers", "advice")
FLOOR_6 = (*FLOOR_5, "train", "report")
FLOOR_7 = (*FLOOR_6, "flags", "verbs", "cli", "bench", "testing", "reproduce")
MAY_IMPORT = {
    "__init__": (), "spec": (), "files": (), "philox": (), "bf16": ("spec",),
    "layers": FLOOR_1,
    "backends.signatures": (), "backends.checks": ("spec",), "backends.__init__": ("spec",),
    "backends.reference": ("spec", "backends.checks", "backends.reference"),        # its own Philox: an oracle judges philox.py
    "backends.cpu": ("spec", "philox", "backends.checks", "backends.cpu"),
    # never the oracle: it would judge itself
    "backends.compiled": ("spec", "backends.checks", "backends.signatures"),
    "backends.emulated": ("spec", "_emulated", "backends.compiled", "backends.emulated"),
    "backends.library": ("spec", "backends.compiled"),
    "backends.cuda": ("spec", "_cuda", "backends.library"),
    "nets": FLOOR_2, "columns": FLOOR_2,
    "progress": (), "config": (*FLOOR_0, *FLOOR_2),
    "memory": FLOOR_3, "exchange": FLOOR_3, "upload": FLOOR_3, "branch": FLOOR_3, "fuse": FLOOR_3, "net": FLOOR_3, "column_net": FLOOR_3,
    "optim": FLOOR_4, "graph": FLOOR_4, "data": FLOOR_4, "checkpoint": FLOOR_4, "distributed": FLOOR_4, "guardian": (),
    "placement": FLOOR_5, "initial": FLOOR_5,
    "retrieval": FLOOR_5, "evaluate": FLOOR_5, "predictions": FLOOR_5, "predict": FLOOR_5,
    "journal": FLOOR_5, "rundir": FLOOR_5, "figures": FLOOR_5, "interop": FLOOR_5, "statistics": FLOOR_5, "tensorboard": FLOOR_5,
    "observers": FLOOR_5, "advice": FLOOR_5,
    "train": FLOOR_6, "report": FLOOR_6,
    "flags": FLOOR_7, "verbs": FLOOR_7, "reproduce": FLOOR_7, "cli": FLOOR_7, "__main__": FLOOR_7, "bench": FLOOR_7, "testing": FLOOR_7,
}
# Beyond the standard library.  The declarations need nothing; the oracle and the fast NumPy path only NumPy.
ONLY_STDLIB = ("__init__", "spec", "files", "guardian", "layers", "nets", "columns", "fuse",
               "backends.signatures", "backends.checks", "backends.__init__")
ONLY_NUMPY = ("philox", "bf16", "memory", "exchange", "net", "column_net", "optim", "graph", "backends.reference", "backends.cpu",
              "backends.compiled", "backends.library", "backends.emulated", "testing")
# Where installed: the bench's peer, the extras' arrays and messages.
PEERS = {"bench": {"torch", "cupy"}, "backends.cuda": {"cupy"}, "distributed": {"mpi4py", "cupy"}}
BY_NAME = ("backends.__init__", "testing.mutants")
IMPORT_NAME = {"pillow": "PIL"}

TEXT = {".py", ".md", ".toml", ".txt", ".in", ".cu", ".cuh", ".h", ".cpp", ".json", ".sh", ".csv", ""}
SOURCE = {".py", ".cu", ".cuh", ".h", ".cpp"}
PLACES = (".ci", "benchmarks", "bindings", "cuda", "docs", "examples", "minialex", "tests")


def tree(suffixes: set[str]) -> list[Path]:
    """The project's own files: those at the top and in the folders of the plan."""
    files = [p for p in ROOT.iterdir() if p.is_file()] + [p for place in PLACES for p in (ROOT / place).rglob("*") if p.is_file()]
    return sorted(p for p in files if p.suffix in suffixes and "__pycache__" not in p.parts)


def modules() -> dict[str, Path]:
    """Dotted name below minialex -> file; a package is called package.__init__."""
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(name: str, source: ast.AST, known: set[str]) -> tuple[set[str], set[str]]:
    """What module `name` imports: (dotted names below minialex, top names from elsewhere)."""
    inside, outside = set(), set()
    package = ["minialex", *name.split(".")[:-1]]
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[:len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [".".join([*base, alias.name]) for alias in node.names] if base[0] == "minialex" else [base[0]]
        else:
            continue
        for target in targets:
            top, _, below = target.partition(".")
            if top != "minialex":
                outside.add(top)
                continue
            while below and below not in known and f"{below}.__init__" not in known:     # cut the names of things off
                below = below.rpartition(".")[0]
            inside.add(below or "__init__")
    return inside, outside


def entry(name: str, table) -> str | None:
    """The key of `table` that covers module `name`: itself or the nearest package above."""
    while name and name not in table:
        name = name.rpartition(".")[0]
    return name or None


def trespasses(name: str, source: ast.AST, known: set[str], runtime: set[str]) -> list[str]:
    """One sentence for each import that module `name` may not make."""
    floor = entry(name, MAY_IMPORT)
    if floor is None:
        return [f"{name} stands on no floor: give it one in MAY_IMPORT"]
    inside, outside = imports(name, source, known)
    allowed = (*MAY_IMPORT[floor], "__init__")
    bad = [f"{name} imports {other}, which is not below it" for other in sorted(inside) if entry(other, allowed) is None]
    if entry(name, ONLY_STDLIB):
        runtime = set()
    elif entry(name, ONLY_NUMPY):
        runtime = {"numpy"}
    foreign = outside - set(sys.stdlib_module_names) - runtime - PEERS.get(floor, set())
    bad += [f"{name} imports {other} from outside the house" for other in sorted(foreign)]
    # x.import_module is an attribute, `from x import import_module` a name of the statement
    words = {getattr(node, "attr", getattr(node, "name", None)) for node in ast.walk(source)}
    if "import_module" in words and name not in BY_NAME:
        bad.append(f"{name} imports by name; only {' and '.join(BY_NAME)} do, from closed lists")
    return bad


def runtime_packages() -> set[str]:
    """Import names of what pyproject.toml installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[A-Za-z0-9_-]+", line)[0] for line in project["dependencies"]]
    return {IMPORT_NAME.get(name, name) for name in names}


def test_every_module_imports_only_from_below():
    known = set(modules())
    bad = [line for name, path in modules().items() for line in trespasses(name, parse(path), known, runtime_packages())]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name, source, word", [
    ("spec", "import numpy", "numpy"),
    ("layers.lrn", "from ..backends import cpu", "backends"),
    ("layers.lrn", "from ..memory import Arena", "memory"),
    ("layers.lrn", "def f():\n    import minialex.net", "net"),
    ("backends.reference.lrn", "from ...philox import philox", "philox"),
    ("backends.reference.lrn", "from .. import cpu", "backends"),
    ("backends.reference.lrn", "import scipy", "scipy"),
    ("backends.cpu.lrn", "from ..reference.lrn import lrn_fprop", "reference"),
    ("nets.alexnet", "from ..backends import load", "backends"),
    ("net", "from .optim import SGD", "optim"),
    ("data.store", "from ..train import main", "train"),
    ("evaluate", "from . import train", "train"),
    ("train", "from minialex.cli import main", "cli"),
    ("train", "import torch", "torch"),
    ("train", "import importlib\nimportlib.import_module(name)", "by name"),
    ("train", "from importlib import import_module as load", "by name"),
    ("novelty", "", "no floor"),
])
def test_an_import_from_above_is_found(name, source, word):
    known = {"net", "memory", "optim", "train", "cli", "philox", "backends.__init__", "backends.cpu.__init__", "backends.reference.lrn"}
    found = trespasses(name, ast.parse(source), known, runtime_packages())
    assert len(found) == 1 and word in found[0]


def plain_signature(function) -> str:
    """As OPS writes it: names, order, kinds and defaults, no annotations, without the compiled backends' `variant` and `rates`."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values() if p.name not in ("variant", "rates")]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_every_backend_exports_the_ops_and_nothing_else():
    reasons = backends.available()
    assert reasons["reference"] is None and reasons["cpu"] is None
    for name in (name for name, reason in reasons.items() if reason is None):
        module = backends.load(name)
        functions = {key: value for key, value in vars(module).items()
                     if not key.startswith("_") and callable(value) and not inspect.isclass(value)}
        assert set(functions) == set(OPS), f"{name}: {sorted(set(functions) ^ set(OPS))} differ from signatures.py"
        differing = {op: plain_signature(functions[op]) for op in OPS if plain_signature(functions[op]) != OPS[op]}
        assert not differing, f"{name} differs from signatures.py: {differing}"


def test_a_differing_signature_is_seen():
    def conv_fprop(x, w, y, b, *, stride: int, pad: int = 0, groups: int) -> None: ...
    assert plain_signature(conv_fprop) == "(x, w, y, b, *, stride, pad=0, groups)" != OPS["conv_fprop"]


@pytest.mark.parametrize("stem", STEMS)
def test_a_layer_has_its_room(stem):
    floors = ["minialex/backends/reference", "minialex/backends/cpu", "cuda", "bindings"]
    floors += ["minialex/layers"] if stem not in ("joint", "sgd", "augment") else []
    suffix = {"cuda": ".cu", "bindings": ".cpp"}
    missing = [name for floor in floors if not (ROOT / (name := f"{floor}/{stem}{suffix.get(floor, '.py')}")).is_file()]
    missing += [] if (ROOT / "tests" / f"test_{stem}.py").is_file() else [f"tests/test_{stem}.py"]
    assert not missing
    assert any(op.startswith(f"{stem}_") for op in OPS)


def test_every_kernel_has_its_doorbell_and_its_test():
    """conv.cu has both; conv_tiled.cu is a part of conv's room."""
    files = {p.stem for p in ROOT.glob("cuda/*.cu")} - {"runtime"}                      # the calls of CUDA itself; no op
    rooms = {next((stem for stem in sorted(STEMS, key=len, reverse=True) if f"{name}_".startswith(f"{stem}_")), name) for name in files}
    assert {s for s in rooms if not (ROOT / "bindings" / f"{s}.cpp").is_file() or not (ROOT / "tests" / f"test_{s}.py").is_file()} == set()


def test_files_stay_small():
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in tree(SOURCE)}
    assert not {name: count for name, count in lines.items() if count > 400}
    used = "bench|figures|interop|reproduce|retrieval|testing|verbs"       # what measures, draws, searches, proves and is typed
    own = {p: lines_of_code(p.read_text()) for p in tree({".py"}) if re.match(f"minialex/(?!({used})/)", str(p.relative_to(ROOT)))}
    assert own and sum(own.values()) < 9950, f"minialex/ has {sum(own.values())} lines of code; a small library has under 9,950"


def lines_of_code(source: str) -> int:
    """Lines that hold code: no blank lines, no comments, no docstrings (which a limit must not make shorter)."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in silent for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(code)


def test_lines_of_code_are_counted():
    assert lines_of_code('"""One."""\n\n# two\nx = [\n    3,\n]  # four\n\ndef f():\n    """Five.\n\n    Six."""\n    return 1\n') == 5

def dead_links(page: Path) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [link for link in links if not link.startswith(("http", "#")) and not (page.parent / link.split("#")[0]).exists()]


def test_links_lead_somewhere(tmp_path):
    dead = {str(page.relative_to(ROOT)): dead_links(page) for page in tree({".md"})}
    assert "README.md" in dead and not any(dead.values()), dead
    (tmp_path / "page.md").write_text("[a](page.md) [b](nowhere.md#x) [c](https://example.org)")
    assert dead_links(tmp_path / "page.md") == ["nowhere.md#x"]


def test_readme_names_things_that_exist():
    """Every path of the tree between back-quotes, and the scripts of the two commands, both in the first 50 lines, and the recipes."""
    text = (ROOT / "README.md").read_text()
    paths = re.findall(r"`((?:minialex|cuda|bindings|examples|tests|docs|benchmarks)/[^`\s]*)`", text)
    assert paths and not [path for path in paths if not (ROOT / path).exists()]
    commands = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2 and commands[1].endswith("-m pytest -q -n auto --dist loadfile") and text.splitlines().index(commands[1]) < 50
    for script in re.findall(r"[\w/]+\.py\b", "\n".join(commands)):
        assert (ROOT / script).is_file()
    table = text.partition("## Recipes")[2].partition("\n## ")[0]
    named = [name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(RECIPES)


# What users run is looked at strictly; but for what is here, with its reason.
DANGEROUS = {"minialex/bench/__main__.py": ["os.execve runs a program"]}        # itself again, with other threads


def test_nothing_runs_what_a_file_says():
    places = ("minialex/", "examples/", "benchmarks/", "setup.py")
    names = [f"minialex/{name.replace('.', '/')}.py" for name in BY_NAME]
    found = {}
    for path in tree({".py"}):
        name = str(path.relative_to(ROOT))
        found[name] = dangers(parse(path), name.startswith(places), name in names)
    assert {name: what for name, what in found.items() if what} == DANGEROUS
    assert all(name in found for name in names) and "setup.py" in found


@pytest.mark.parametrize("source", [
    "import pickle", "from pickle import loads", "from six.moves import cPickle", "import yaml as y", "import marshal", "import shelve",
    "eval('1')", "exec(text)", "run = eval", "__import__(name)", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)",
    "run('x', shell=flag)"])
def test_a_danger_is_found(source):
    assert len(dangers(ast.parse(source))) == 1
    assert dangers(ast.parse("np.load(p, allow_pickle=False); model.eval()")) == []


@pytest.mark.parametrize("source", [
    "compile(text, '', 'exec')", "np.load(p)", "numpy.load(p)", "tar.extract(m)", "tar.extractall()", "zipfile.ZipFile(p).extractall()",
    "shutil.unpack_archive(p)", "Image.open(p)", "PIL.Image.open(p, 'r')", "from PIL.Image import open", "import PIL.Image as I",
    "from PIL import Image as I", "os.system(c)", "os.popen(c)", "from os import system", "import os as o", "os.execv(p, a)",
    "os.spawnl(0, p)", "subprocess.getoutput(c)", "torch.load(p)", "import torch as t", "from torch import load", "builtins.exec(t)",
    "importlib.import_module(name)", "from importlib import import_module", "spec.loader.exec_module(m)", "runpy.run_path(p)",
    "pandas.read_pickle(p)"])
def test_a_danger_in_what_users_run_is_found(source):
    assert len(dangers(ast.parse(source), strict=True)) == 1, source
    harmless = ("Image.open(p, formats=('PNG',)); re.compile(p); torch.compile(m); tar.extractfile(m); importlib.import_module('numpy')\n"
                "import numpy as np; from . import load; subprocess.run([program]); open(p); np.load(p, allow_pickle=False)")
    assert dangers(ast.parse(harmless), strict=True) == []
    assert dangers(ast.parse("importlib.import_module(name)"), strict=True, by_name=True) == []


# A folder of one machine, or the address of one package index; and notes to oneself.
MACHINE = re.compile(r"(?:^|[^A-Za-z0-9_./-])/(?:work|farm|root|home|tmp|opt|mnt|scratch)/|(?:index-url|find-links|trusted-host)[ =]", re.M)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def test_no_file_names_a_machine_or_is_unfinished():
    texts = {str(p.relative_to(ROOT)): p.read_text() for p in tree(TEXT)}
    assert not {name: found[0] for name, text in texts.items() if (found := MACHINE.search(text) or UNFINISHED.search(text))}
    planted = ["path = '/ho" + "me/me/data'", "pip install --index" + "-url https://host/simple", "see (/wo" + "rk/x)", "# TO" + "DO later"]
    assert all(MACHINE.search(line) or UNFINISHED.search(line) for line in planted)


def test_fixtures_the_tests_name_are_there():
    """A literal that starts with fixtures/ or golden/ in a test is a file kept beside the tests."""
    literals = {node.value for p in (ROOT / "tests").glob("*.py") for node in ast.walk(parse(p)) if isinstance(node, ast.Constant)}
    named = [text for text in literals if isinstance(text, str) and re.fullmatch(r"(?:fixtures|golden)/[\w./-]+", text)]
    assert not [name for name in sorted(named) if not (ROOT / "tests" / name).exists()]
