"""What a disk may hold behind a power cut: a run's changes of the disk, recorded in order, and the folders they could have left.

A recorded program's opens, writes, fsyncs, renames, removals and folders become `Change`s.  `Disk` follows them twice: as the program
sees the disk, and as POSIX promises it, where the content of a file is safe behind its fsync and a name behind that of its folder.
Between the two lies everything that a machine without power may come back with.
"""

from __future__ import annotations

import builtins
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("killed", "lost", "names first", "content first", "torn", "mixed")


class Change(NamedTuple):
    """`what` of create, write, truncate, sync, sync folder, rename, remove, make folder, remove folder, mark."""
    what: str
    path: str = ""
    value: Any = None           # of write: (offset, bytes); of rename: the new path; of mark: whatever the test says


class Recorder:
    """Everything this process changes below `root`, in order, in `changes`."""

    def __init__(self, patch, root: Path):
        self.root, self.changes, self.real_open = root.resolve(), [], builtins.open
        self.handles: dict[int, str] = {}
        patch.setattr(builtins, "open", self._open)
        patch.setattr(io, "open", self._open)
        for name, what in (("replace", "rename"), ("rename", "rename"), ("unlink", "remove"), ("remove", "remove"),
                           ("mkdir", "make folder"), ("rmdir", "remove folder")):
            patch.setattr(os, name, self._wrapped(getattr(os, name), what))
        real = {name: getattr(os, name) for name in ("open", "close", "fsync", "ftruncate", "pwrite")}
        self.real = real

        def opened(path, flags, *args, **more):
            handle = real["open"](path, flags, *args, **more)
            if (place := self.place(path, more.get("dir_fd"))) is not None:
                if flags & os.O_CREAT and place not in self.names():
                    self.add("create", place)
                self.handles[handle] = place
            return handle

        def closed(handle):
            self.handles.pop(handle, None)
            real["close"](handle)

        def synced(handle):
            real["fsync"](handle)
            if handle in self.handles:
                folder = os.path.isdir(self.root / self.handles[handle])
                self.add("sync folder" if folder else "sync", self.handles[handle])

        def truncated(handle, length):
            real["ftruncate"](handle, length)
            if handle in self.handles:
                assert length == 0
                self.add("truncate", self.handles[handle])

        def written(handle, content, offset):
            if handle in self.handles:
                self.add("write", self.handles[handle], (offset, bytes(content)))
            return real["pwrite"](handle, content, offset)

        for name, call in (("open", opened), ("close", closed), ("fsync", synced), ("ftruncate", truncated), ("pwrite", written)):
            patch.setattr(os, name, call)

    def add(self, what: str, path: str = "", value: Any = None) -> None:
        self.changes.append(Change(what, path, value))

    def names(self) -> set[str]:
        disk = Disk()
        for change in self.changes:
            disk.apply(change)
        return set(disk.names)

    def place(self, path, folder: int | None = None) -> str | None:
        """`path` as seen from the root, None for one that is elsewhere."""
        if not isinstance(path, (str, os.PathLike)):
            return None
        if folder is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        path = Path(os.path.realpath(os.path.dirname(os.path.abspath(path)))) / os.path.basename(os.path.abspath(path))
        return str(path.relative_to(self.root)) if path == self.root or self.root in path.parents else None

    def _wrapped(self, real, what: str):
        def call(path, *args, **more):
            place = self.place(path, more.get("dir_fd"))
            result = real(path, *args, **more)
            if place is not None:
                self.add(what, place, self.place(args[0]) if what == "rename" else None)
            return result
        return call

    def _open(self, path, mode="r", *args, **more):
        place = self.place(path)
        if place is None or not {"w", "a", "x", "+"} & set(mode):
            return self.real_open(path, mode, *args, **more)
        recorder = self
        if "w" in mode or place not in self.names():
            self.add("create", place)

        class File(io.FileIO):
            """Without a buffer, so that every write is seen, in its order."""

            def write(file, data):
                content = bytes(memoryview(data).cast("B"))
                at = os.fstat(file.fileno()).st_size if "a" in mode else file.tell()
                recorder.add("write", place, (at, content))
                return io.FileIO.write(file, content)

        file = File(path, mode.replace("b", "").replace("t", ""))
        self.handles[file.fileno()] = place
        return file if "b" in mode else io.TextIOWrapper(file, write_through=True)


Content = tuple                 # of (offset, bytes): the writes since the file was made


def name_of(content: Content) -> tuple:
    """The same for the same writes, and soon made; halves of writes are new objects."""
    return tuple((offset, id(data), len(data)) for offset, data in content)


def joined(content: Content) -> bytes:
    result = bytearray()
    for offset, data in content:
        result.extend(bytes(max(0, offset - len(result))))
        result[offset:offset + len(data)] = data
    return bytes(result)


class Disk:
    """Names and contents as the program sees them (`names`, `content`) and as they are safe (`safe_names`, `safe_content`)."""

    def __init__(self):
        self.names: dict[str, int | None] = {".": None}             # path -> number of the file, None for a folder
        self.safe_names: dict[str, int | None] = {".": None}
        self.content: list[Content] = []
        self.safe_content: list[Content] = []

    def apply(self, change: Change) -> None:
        what, path, value = change
        if what == "create":
            if path in self.names:
                self.content[self.names[path]] = ()
            else:
                self.names[path] = len(self.content)
                self.content.append(())
                self.safe_content.append(())
        elif what == "truncate":
            self.content[self.names[path]] = ()
        elif what == "write":
            self.content[self.names[path]] += (value,)
        elif what == "sync":
            self.safe_content[self.names[path]] = self.content[self.names[path]]
        elif what == "sync folder":
            inside = {p: n for p, n in self.names.items() if os.path.dirname(p) == (path if path != "." else "") and p != "."}
            outside = {p: n for p, n in self.safe_names.items() if os.path.dirname(p) != (path if path != "." else "") or p == "."}
            self.safe_names = outside | inside
        elif what == "rename":
            assert os.path.dirname(path) == os.path.dirname(value)
            self.names[value] = self.names.pop(path)
        elif what == "make folder":
            self.names[path] = None
        elif what in ("remove", "remove folder"):
            del self.names[path]

    def left(self, kind: str, draw: random.Random) -> dict[str, Content | None]:
        """What may be there when the power is back: path -> content, None for a folder."""
        names = {"lost": self.safe_names, "content first": self.safe_names, "mixed": self._mixed(draw)}.get(kind, self.names)
        result = {}
        for path, number in names.items():
            above = [str(p) for p in Path(path).parents if str(p) != "."]
            if any(p not in names for p in above):
                continue                                            # in a folder that is not there
            if number is None:
                result[path] = None
                continue
            seen, safe = self.content[number], self.safe_content[number]
            if seen[:len(safe)] != safe:
                safe = ()                                           # truncated since, and that alone reached the disk
            if kind in ("lost", "names first"):
                result[path] = safe
            elif kind == "torn" and len(seen) > len(safe):
                result[path] = (*seen[:-1], (seen[-1][0], seen[-1][1][:len(seen[-1][1]) // 2]))
            elif kind == "mixed":
                result[path] = seen[:draw.randint(len(safe), len(seen))]
            else:
                result[path] = seen
        del result["."]
        return result

    def _mixed(self, draw: random.Random) -> dict[str, int | None]:
        """Each name as it is seen or as it is safe, by lot."""
        names = {}
        for path in sorted(self.names.keys() | self.safe_names.keys()):
            one = draw.choice((self.names, self.safe_names))
            if path in one:
                names[path] = one[path]
        return names


def states(changes: list[Change], kinds: tuple[str, ...] = KINDS, draws: int = 1, seed: int = 0) -> Iterator[tuple[str, int, list, dict]]:
    """(kind, number of changes done, marks passed, path -> content) of every different state behind every change."""
    draw, disk, marks, seen = random.Random(seed), Disk(), [], set()
    for done, change in enumerate(changes, 1):
        if change.what == "mark":
            marks = [*marks, change.value]
        else:
            disk.apply(change)
        for kind in kinds:
            for _ in range(draws if kind == "mixed" else 1):
                left = disk.left(kind, draw)
                key = (len(marks), frozenset((path, None if content is None else name_of(content)) for path, content in left.items()))
                if key not in seen:
                    seen.add(key)
                    yield kind, done, marks, left


class Workshop:
    """Makes folders as states say; large files, which no program here writes into once they are whole, are written once and linked."""

    def __init__(self, place: Path):
        self.place, self.count, self.made = place, 0, {}
        (place / "large").mkdir(parents=True)

    def restored(self, left: dict) -> Path:
        self.count += 1
        folder = self.place / str(self.count)
        folder.mkdir()
        for path, content in sorted(left.items()):
            if content is None:
                (folder / path).mkdir()
            elif sum(len(data) for _, data in content) < 1 << 16:
                (folder / path).write_bytes(joined(content))
            else:
                key = name_of(content)
                if key not in self.made:
                    self.made[key] = self.place / "large" / str(len(self.made))
                    self.made[key].write_bytes(joined(content))
                os.link(self.made[key], folder / path)
        return folder
