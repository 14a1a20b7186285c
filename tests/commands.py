"""The command line as a user meets it: called in this process, with what it said, and what it left on the disk."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from minialex import train
from minialex.cli import main
from minialex.data.source import shown

CHECKOUT = Path(__file__).resolve().parents[1]


def said(capsys, *words) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of `minialex WORDS`."""
    capsys.readouterr()
    status = main([os.fspath(word) if isinstance(word, Path) else str(word) for word in words])
    return (status, *capsys.readouterr())


def one_epoch(store: Path, folder: Path) -> Path:
    """The run directory of one epoch on a store, to be looked at and copied."""
    train.run({"data": str(store), "recipe": "tiny", "batch": 18, "epochs": 1, "output_dir": str(folder / "run")}, quiet=True)
    return folder / "run"


def empty_folder(tmp_path: Path, monkeypatch) -> Path:
    """Makes an empty folder the current one: there runs/ and stores/ would appear."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def everything(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with its size and time of change; a folder has neither."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            status = path.lstat()
            found[str(path)] = (0, 0) if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


def refused(capsys, place: Path, words, *parts: str, status: int = 2) -> str:
    """Asserts that `minialex WORDS` ends with `status` and one sentence holding every part, and changes nothing below `place`
    or the current folder, an empty one unless the test has chosen it (other tests write below the checkout).  Returns the sentence."""
    with TemporaryDirectory() as empty, chdir(empty if Path.cwd() == CHECKOUT else Path.cwd()):
        before = everything(place, Path.cwd())
        got, out, err = said(capsys, *words)
        assert got == status, (got, out, err)
        lines = err.splitlines()
        sentence = lines[-1] if lines else ""
        assert len([line for line in lines if not line.startswith("prepare ")]) == 1, err      # the bar of a preparation may stand above
        assert sentence.startswith("minialex") and "Traceback" not in out + err
        for part in parts:
            assert shown(part) in sentence, (part, sentence)
        assert everything(place, Path.cwd()) == before
    return sentence


def finished(capsys, *words) -> str:
    """The standard output of a command that must end well and complain of nothing."""
    status, out, err = said(capsys, *words)
    assert status == 0, err
    assert "Traceback" not in err
    return out
