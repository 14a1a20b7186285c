"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
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
