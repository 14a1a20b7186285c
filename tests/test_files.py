"""Files are replaced whole or not at all."""

from __future__ import annotations

import ast
import errno
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from faults import Crash, Faults

from minialex import files

OLD, NEW = b"old " * 1000, b"new!" * 3000


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a name with spaces \N{SNOWMAN}"
    files.write(path, OLD)
    files.write(path, lambda file: file.write(NEW))
    assert path.read_bytes() == NEW and [p.name for p in tmp_path.iterdir()] == [path.name]
    files.write_json(path, {"b": [1, None], "a": "x"})
    assert path.read_text() == '{\n "a": "x",\n "b": [\n  1,\n  null\n ]\n}\n'


# What may write without files.py, and why nothing is lost by it.
ELSEWHERE = {
    "checkpoint.py: os.open": "the lock of a run: it holds who holds it",
    "data/prepare.py: open": "the lock of a preparation, which is empty",
    "data/synthetic.py: mkdir": "pictures that can be made again",
    "flags.py: os.open": "the null device in place of an output that nobody reads",
}


def writes(source: str) -> list[str]:
    """Calls that change a disk: opening for writing, whole-file writers, renames, new folders.  A temporary file of files.atomic, and a
    file object that files.write hands on, are its own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, first = ast.unparse(node.func), ast.unparse(node.args[0]) if node.args else ""
        short = name.rpartition(".")[2]
        if name == "os.open" and re.search("O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", ast.unparse(node)):
            found.append("os.open")
        elif short == "open" and name != "os.open" and first != "temporary" and not any(k.arg == "fileobj" for k in node.keywords):
            words = [a.value for a in ast.walk(node) if isinstance(a, ast.Constant)]
            found += [short for word in words if isinstance(word, str) and re.fullmatch("[rbt]*[wax+][bt+]*", word)]
        elif (short in ("write_text", "write_bytes", "mkdir", "makedirs", "tofile", "copy2", "copyfile", "copytree", "move", "symlink_to")
              or name in ("os.replace", "os.rename", "os.truncate", "os.link")
              or (name in ("np.save", "np.savez", "figure.savefig", "plt.savefig", "image.save") and first not in ("file", "buffer"))):
            found.append(short)
    return found


def test_the_detector_of_writes_finds_them():
    for line in ("open(p, 'w')", "open(p, mode='ab')", "io.open(p, 'r+b')", "p.open('x')", "os.open(p, os.O_RDWR)", "p.write_text(t)",
                 "p.mkdir()", "os.replace(a, b)", "np.save(p, x)", "figure.savefig(p)", "image.save(p)"):
        assert len(writes(line)) == 1, line
    for line in ("open(p)", "open(p, 'rb')", "open(temporary, 'wb')", "os.open(p, os.O_RDONLY)", "figure.savefig(file)", "Image.open(p)"):
        assert not writes(line), line


def test_everything_is_written_here():
    """The program's own files: not the benchmarks, which write into temporary folders, nor the tests."""
    package = Path(files.__file__).parent
    found = {f"{path.relative_to(package)}: {call}" for path in package.rglob("*.py") for call in writes(path.read_text())
             if path.relative_to(package).parts[0] not in ("bench", "files.py")}
    assert found == set(ELSEWHERE)


def test_the_order_of_calls_is_the_safe_one(tmp_path, monkeypatch):
    faults = Faults(monkeypatch, at=10**9)
    files.write(tmp_path / "file", NEW)
    assert faults.calls == ["create", "write", "open", "fsync", "replace", "open", "fsync"]


@pytest.mark.parametrize("kind", ["error", "crash"])
@pytest.mark.parametrize("before", [None, OLD])
def test_a_failure_at_any_call_leaves_old_or_new(tmp_path, kind, before):
    for at in count(1):
        path = tmp_path / f"{at}" / "file"
        path.parent.mkdir()
        if before:
            path.write_bytes(before)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, kind)
            try:
                files.write(path, NEW)
                assert not faults.fired, "a failure was swallowed"
            except (OSError, Crash):
                assert faults.fired
        content = path.read_bytes() if path.exists() else None
        assert content in (before, NEW)
        renamed = "replace" in faults.calls[:at - 1]
        assert content == (NEW if renamed else before)
        left = [p.name for p in path.parent.iterdir() if p != path]
        assert not left or kind == "crash"
        assert files.sweep(path.parent) == left and len(list(path.parent.iterdir())) == (content is not None)
        if not faults.fired:
            break
    assert at == 8


def test_an_exception_of_the_writer_removes_the_temporary_file(tmp_path):
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(ZeroDivisionError):
        files.write(tmp_path / "file", lambda file: file.write(b"half") + 1 // 0)
    assert (tmp_path / "file").read_bytes() == OLD and len(list(tmp_path.iterdir())) == 1


def test_sweep_touches_only_temporary_files(tmp_path):
    for name in ("keep", ".keep", "x.partial", f".file.12{files.TEMPORARY}"):
        (tmp_path / name).write_text("")
    assert files.sweep(tmp_path) == [".file.12.partial"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".keep", "keep", "x.partial"]


def test_a_file_larger_than_allowed_leaves_the_old_one(tmp_path):
    """The real thing in a process of its own: the kernel refuses to let a file grow beyond a limit."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    code = ("import resource, sys; from minialex import files; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "try: files.write(sys.argv[1], bytes(12000))\n"
            "except OSError as error: print(error.errno)")
    root = Path(files.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)]
    assert path.read_bytes() == OLD and len(list(tmp_path.iterdir())) == 1
