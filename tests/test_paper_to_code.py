"""docs/PAPER_TO_CODE.md names nothing that is not there, and leaves out no difference between the two recipes."""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest

from minialex.cli import build_parser
from minialex.nets import RECIPES, recipe
from minialex.reproduce.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "PAPER_TO_CODE.md"
SHORT = {"alexnet": "minialex/nets/alexnet.py"} | dict.fromkeys(("Recipe", "Augmentation", "Plateau", "Steps"), "minialex/nets/recipe.py")
TEST = re.compile(r"`(tests/test_\w+\.py::test_\w+)`")


@cache
def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Name -> statement of what a module or class defines at its top: functions, classes, assignments, fields."""
    names = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return names


def understood(command: str) -> bool:
    """Whether the program has this verb, the verb these flags, and `reproduce` these experiments."""
    _, verb, *words = command.split()
    verbs = next(action.choices for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    if verb not in verbs:
        return False
    known = verbs[verb]._option_string_actions
    names = CATALOGUE if verb == "reproduce" else words
    return all(word in (known if word.startswith("-") else names) for word in words)


def there(word: str) -> bool:
    """A file, `file::name`, `file::Class.attribute`, `file::function(argument)`, the last two also short, a recipe, or a command."""
    if word.startswith("minialex "):
        return understood(word)
    path, _, name = word.partition("::")
    owner = re.match(r"\w+", word)
    if not name and "/" not in word and owner and owner[0] in SHORT and owner[0] != word:
        path, name = SHORT[owner[0]], word
    if not name:
        return word in RECIPES or ("/" in word and (ROOT / word).is_file())
    shape = re.fullmatch(r"(\w+)(?:\.(\w+)|\((\w+)\))?", name)
    if not shape or not (ROOT / path).is_file():
        return False
    top, attribute, argument = shape.groups()
    node = defined(parsed(path).body).get(top)
    if attribute:
        return isinstance(node, ast.ClassDef) and attribute in defined(node.body)
    if argument:
        return isinstance(node, ast.FunctionDef) and argument in {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
    return node is not None


def missing(text: str) -> list[str]:
    return [word for word in re.findall(r"`([^`]*)`", text) if not there(word)]


def table(heading: str) -> list[str]:
    """The rows of the table under a heading, without its head."""
    part = re.split(rf"^##+ {re.escape(heading)}$", PAGE.read_text(), flags=re.M)[1]
    part = re.split(r"^##", part, flags=re.M)[0]
    return [line for line in part.splitlines() if line.startswith("|")][2:]


FACTS, SLIPS, EXPERIMENTS = "What the paper says, and where it is", "Slips of the paper", "Experiments, each a command"
DIFFERENCES, SUMMARIES = "Where the paper and the 2012 program differ", "What common summaries say, and the test that decides"


def test_every_name_on_the_page_is_there():
    text = PAGE.read_text()
    assert text.count("`") % 2 == 0 and len(TEST.findall(text)) > 80
    assert missing(text) == []


@pytest.mark.parametrize("word", [
    "tests/test_nets.py::test_nothing", "tests/test_nowhere.py::test_neurons", "tests/test_nowhere.py", "minialex/layers/nowhere.py",
    "minialex/layers/lrn.py::Lrn", "minialex/layers/lrn.py::LRN.gamma", "minialex/layers/lrn.py::LRN(n)", "alexnet(order3)",
    "minialex/nets/alexnet.py::alexnet(nothing)", "Recipe.nothing", "Augmentation.schedule", "paper2013", "alexnet", "layers",
    "minialex/layers", "minialex tarin", "minialex train --inti", "minialex reproduce fig11",
    "tests/test_nets.py::test_neurons()", "tests/test_nets.py::", ""])
def test_what_is_not_there_is_found(word):
    assert missing(f"see `{word}` and `tests/test_nets.py::test_neurons`, `LRN` is no word either") == [word, "LRN"]


def test_what_is_there_is_accepted():
    assert missing("`paper` `alexnet(order1)` `Recipe.ties` `minialex/layers/lrn.py::LRN.divide_by_n` `minialex/nets/alexnet.py::BOTH` "
                   "`minialex/nets/recipe.py` `minialex/optim.py::SGD.step` `minialex/nets/alexnet.py::alexnet(bias)` "
                   "`minialex train DATA --init RUN -b 32`") == []


def test_every_row_has_its_tests():
    """A difference needs the test that both recipes declare it and one, of another file, of what it does."""
    for heading, rows in ((FACTS, 20), (SLIPS, 5), (DIFFERENCES, 16), (SUMMARIES, 20)):
        lines = table(heading)
        assert len(lines) >= rows, heading
        width = lines[0].count("|")
        for line in lines:
            tests = TEST.findall(line.rsplit("|", 2)[1])
            assert line.count("|") == width and (tests or (heading == SUMMARIES and "| no test: " in line)), line
            if heading == DIFFERENCES:
                assert tests[0].startswith("tests/test_nets.py::test_row") and any("test_nets" not in test for test in tests), line
    assert sum("| no test: " in line for line in table(SUMMARIES)) == 2


def test_every_experiment_is_named_with_its_section():
    """In the catalogue's order; a command between back-quotes is there."""
    rows = [line.strip("|").split("|") for line in table(EXPERIMENTS)]
    named = [(re.search(r"minialex reproduce ([\w-]+)", command)[1], section.strip()) for section, _, command in rows]
    assert [row for row in named if row[0] in CATALOGUE] == [(name, one.section) for name, one in CATALOGUE.items()]


def differing(paper, source, owner: str) -> set[str]:
    """Fields of two recipes that are not equal, as the page writes them; keywords of `alexnet` for the networks."""
    result = set()
    for name in [field.name for field in fields(paper)]:
        one, other = getattr(paper, name), getattr(source, name)
        if name == "build":
            result |= {f"alexnet({keyword})" for keyword in other.keywords}
        elif name not in ("name", "about", "differs") and one != other:
            same = type(one) is type(other) and is_dataclass(one)
            result |= differing(one, other, type(one).__name__) if same else {f"{owner}.{name}"}
    return result


def test_no_difference_of_the_recipes_is_left_out():
    wanted = differing(recipe("paper"), recipe("source2012"), "Recipe")
    assert len(wanted) == 17 and {"alexnet(order1)", "Augmentation.chunk", "Recipe.schedule", "Recipe.ties"} <= wanted
    named = set(re.findall(r"`([^`]*)`", "\n".join(line.split("|")[4] for line in table(DIFFERENCES))))
    assert wanted <= named, f"without a row: {sorted(wanted - named)}"


PLACES = ("minialex", "tests", "docs", "examples", "cuda", "bindings", "benchmarks")


def unknown_pages(text: str, folder: Path) -> list[str]:
    """Pages, whose names are in capitals, that lie neither below the top nor below `folder`."""
    pages = re.findall(r"[\w./-]*\b[A-Z_]{3,}\.md\b", text)
    return [page for page in pages if not any((place / page).is_file() for place in (ROOT, folder))]


def test_pages_that_code_and_pages_mention_are_there():
    """A reader must be able to open what a comment sends them to."""
    files = [path for place in PLACES for path in (ROOT / place).rglob("*")
             if path.suffix in (".py", ".md", ".cu", ".cuh", ".cpp", ".h") and path.name not in (Path(__file__).name, "test_house.py")]
    assert len(files) > 100
    assert {str(path): bad for path in [*files, ROOT / "README.md"] if (bad := unknown_pages(path.read_text(), path.parent))} == {}
    assert unknown_pages("see NOTES.md, docs/PAPER_TO_CODE.md and PAPER_TO_CODE.md", ROOT / "docs") == ["NOTES.md"]
