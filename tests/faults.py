"""A file system that fails on order: the i-th call that changes or syncs something raises, or the whole process "dies" there."""

from __future__ import annotations

import builtins
import errno
import io
import os

NAMES = ("open", "fsync", "replace", "unlink", "mkdir")


class Crash(BaseException):
    """The machine stopped: nothing after it reaches the disk."""


class Faults:
    """Counts opens (for writing), writes, fsyncs, renames and removals; call number `at` fails.

    kind="error": that call alone raises OSError(code), as a full or failing disk does.  kind="crash": it and every call
    after it raise Crash, so no clean-up happens either.  A write that fails has written its first half.
    """

    def __init__(self, monkeypatch, at: int, kind: str = "error", code: int = errno.ENOSPC):
        self.at, self.kind, self.code, self.count, self.calls = at, kind, code, 0, []
        real_open = builtins.open

        class File(io.FileIO):
            def write(file, data):
                content = bytes(data)
                self.call("write", lambda: io.FileIO.write(file, content[:len(content) // 2]))
                return io.FileIO.write(file, content)

        def opened(path, mode="r", *args, **more):
            if not {"w", "a", "x", "+"} & set(mode):
                return real_open(path, mode, *args, **more)
            self.call("create", path=path)
            return File(path, mode.replace("b", ""))

        monkeypatch.setattr(builtins, "open", opened)
        for name in NAMES:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*args, **more):
            self.call(name, path=None if name == "fsync" else args[0])
            return real(*args, **more)
        return call

    @property
    def fired(self) -> bool:
        return self.count >= self.at

    def call(self, name: str, half=None, path=None) -> None:
        """A call with a path names it in its error, as the system's do; a write or a sync does not."""
        self.count += 1
        self.calls.append(name)
        if self.count == self.at or (self.kind == "crash" and self.fired):
            if half and self.count == self.at:
                half()
            raise Crash if self.kind == "crash" else OSError(self.code, os.strerror(self.code), *([os.fspath(path)] if path else []))
