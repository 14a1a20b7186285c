"""Folder-per-class trees, as folders or packed in a tar (paper, section 2: labelled pictures of any size).

    train/CLASS/x.jpg  val/CLASS/y.jpg      split by folders (training, valid, validation, test are understood too)
    CLASS/x.jpg                             no split: the rule of `held_out` chooses the validation pictures
Pictures may lie deeper within their class; one common outer folder is looked through.  A class's id is its folder's name; its words come
from classes.txt or synset_words.txt ("id words" a line) in the tree's root, if there is one.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .archive import Member, read_or_refuse, stamp, walk
from .source import ClassInfo, DataError, Item, Source, is_picture, read_file, read_names, shown

ROLES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NAMES_FILES = ("classes.txt", "synset_words.txt")
MAX_NAMES_BYTES = 4 << 20
MAX_FOLDERS = 1_000_000
MAX_FOLDER_NAMES = 32 << 20     # characters in all, of an archive's folders
EVERY = 10


def held_out(index: int, count: int) -> bool:
    """Whether a class's picture `index` of `count` is for validation where no folder says so: every tenth of them, and the last one
    of a class of two to nine pictures."""
    return index % EVERY == EVERY - 1 if count >= EVERY else count > 1 and index == count - 1


@dataclass(frozen=True)
class Layout:
    """What a tree's folders mean: `prefix` leads to its root, `folders` maps a folder there to its split ({} without split), `counts`
    gives {split: {class: pictures}}, where an unsplit tree's pictures all count as "all"."""

    prefix: tuple[str, ...]
    folders: dict[str, str]
    counts: dict[str, dict[str, int]]
    strays: int

    def locate(self, parent: tuple[str, ...]) -> tuple[str, str] | None:
        """(split, class) of pictures in folder `parent`, None for those outside any class."""
        depth = len(self.prefix)
        if parent[:depth] != self.prefix:
            return None
        rest = parent[depth:]
        if not self.folders:
            return ("all", rest[0]) if rest else None
        return (self.folders[rest[0]], rest[1]) if len(rest) > 1 and rest[0] in self.folders else None


def resolve(pictures: Counter[tuple[str, ...]], place: str) -> Layout:
    """The layout of a tree from the number of pictures directly in each folder.  Raises DataError where there is no sense in it."""
    full = [parent for parent, count in pictures.items() if count]
    if not full:
        raise DataError(f"{place} contains no pictures (JPEG or PNG files); put one folder of pictures per class into it")
    prefix: tuple[str, ...] = ()
    while all(len(parent) > len(prefix) + 1 for parent in full):
        heads = {parent[len(prefix)] for parent in full}
        if len(heads) > 1 or next(iter(heads)).lower() in ROLES:
            break
        prefix = (*prefix, heads.pop())
    depth = len(prefix)
    folders = {parent[depth]: ROLES[parent[depth].lower()] for parent in full if len(parent) > depth + 1 and parent[depth].lower() in ROLES}
    # Folders called "train" and "test" may also be classes: of an unsplit tree of vehicles, say.
    if folders and "train" not in folders.values() and len({parent[depth] for parent in full if len(parent) > depth}) > len(folders):
        folders = {}
    if len(set(folders.values())) < len(folders):
        raise DataError(f"{place} has two folders for one split ({', '.join(sorted(folders))}); keep one of them")
    if folders and "val" not in folders.values():
        folders = {name: "val" if split == "test" else split for name, split in folders.items()}
    layout = Layout(prefix, folders, {}, 0)
    strays = 0
    for parent, count in pictures.items():
        if (where := layout.locate(parent)) is None:
            strays += count
            continue
        of_split = layout.counts.setdefault(where[0], {})
        of_split[where[1]] = of_split.get(where[1], 0) + count
    if not layout.counts:
        raise DataError(f"{place} holds pictures but no class folders; put the pictures of each class into a folder of its own")
    return Layout(prefix, folders, layout.counts, strays)


class _Tree(Source):
    """What folders and archives of folders have in common: classes, splits and counts from a Layout."""

    def __init__(self, path: Path, layout: Layout, names: dict[str, str], whole: bool = False) -> None:
        self.layout = layout
        place, counts = shown(path), layout.counts
        main = "all" if "all" in counts else "train" if "train" in counts else next(iter(counts))
        ids = sorted(counts[main])
        for split, of_split in sorted(counts.items()):
            for name in sorted(of_split):
                if not of_split[name]:
                    raise DataError(f"{place}: the class folder {shown(name)!r} contains no pictures; remove it or put pictures into it")
                if name not in counts[main]:
                    raise DataError(f"{place}: class {shown(name)!r} is in the {split} folder but not in the {main} folder; add it")
        if len(ids) == 1:
            raise DataError(f"{place} has one class only ({shown(ids[0])!r}); a classifier needs two or more class folders")
        self.labels = {name: label for label, name in enumerate(ids)}
        # A tree without validation folder gives every tenth training picture to it.
        self.ruled = main if "val" not in counts and main in ("all", "train") and not whole else None
        totals = {split: sum(of_split.values()) for split, of_split in counts.items()}
        if self.ruled:
            held = sum(held_out(i, n) for n in counts[main].values() for i in range(n))
            del totals[main]
            totals |= {"train": sum(counts[main].values()) - held, "val": held}
        self._totals = {split: totals[split] for split in ("train", "val", "test") if totals.get(split)}
        classes = tuple(ClassInfo(name, names.get(name, name)) for name in ids)
        super().__init__(path, classes, tuple(self._totals))
        if self.ruled:
            self.notes.append("no validation folder: every tenth picture of each class is for validation (of two to nine, the last)")
        if any(ROLES[name.lower()] == "test" and split == "val" for name, split in layout.folders.items()):
            self.notes.append("no validation folder: the test folder's pictures are used as validation pictures")
        if layout.strays:
            self.notes.append(f"{layout.strays} pictures outside any class folder are left out")
        missing = [name for name in ids if main == "train" and "val" in counts and name not in counts["val"]]
        if missing:
            self.notes.append(f"{len(missing)} classes have no validation pictures, the first is {shown(missing[0])!r}")

    def count(self, split: str) -> int:
        self._check(split)
        return self._totals[split]

    def _chosen(self, split: str, found: str, name: str, index: int) -> bool:
        """Whether picture `index` of class `name` in folder split `found` belongs to `split`."""
        if found != self.ruled:
            return found == split
        return split in ("train", "val") and held_out(index, self.layout.counts[found][name]) == (split == "val")


class FolderTree(_Tree):
    """Pictures in folders.  Order: class by class, within a class by path.  Only one class's names are in memory at a time."""

    kind = "folder"

    def __init__(self, path: str | os.PathLike, whole: bool = False) -> None:
        """`whole`: a tree without splits is for training, all of it."""
        path = Path(path)
        pictures: Counter[tuple[str, ...]] = Counter()
        for folder, names in _folders(path):
            pictures[folder] = len(names)
            if len(pictures) > MAX_FOLDERS:
                raise DataError(f"{shown(path)} has more than {MAX_FOLDERS} folders; is this the data set's own folder?")
        outer = {folder[:depth] for folder in pictures for depth in range(len(folder))}
        for folder in [folder for folder in outer if not pictures[folder]]:  # a folder of folders is no empty class
            del pictures[folder]
        if not +pictures and any(name.lower().endswith(".tar") for name in os.listdir(path)):
            raise DataError(f"{shown(path)} holds tar archives but no class folders; give the path of the archive itself")
        layout = resolve(pictures, shown(path))
        if whole and "all" in layout.counts:
            layout = replace(layout, counts={"train": layout.counts["all"]})
        self.root = path.joinpath(*layout.prefix)
        names = {}
        for file in (self.root / name for name in NAMES_FILES):
            if file.is_file():
                names = read_names(read_file(file, shown(file), MAX_NAMES_BYTES).decode("utf-8", "replace"))
                break
        super().__init__(path, layout, names, whole)

    def _files(self, found: str, name: str) -> list[str]:
        """Paths of a class's pictures relative to the tree's root, sorted."""
        outer = [folder for folder, split in self.layout.folders.items() if split == found] if self.layout.folders else [""]
        top = self.root / outer[0] / name
        lead = "/".join(part for part in (outer[0], name) if part)
        return sorted("/".join((lead, *folder, file)) for folder, files in _folders(top) for file in files)

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        found = self.ruled if self.ruled and split != "test" else split
        index = 0
        for name, label in self.labels.items():
            if name not in self.layout.counts[found]:
                continue
            files = self._files(found, name)
            if len(files) != self.layout.counts[found][name]:
                raise DataError(f"{shown(self.path)}: pictures of class {shown(name)!r} came or went while it was read; start again")
            for position, file in enumerate(files):
                if self._chosen(split, found, name, position):
                    if index >= start:
                        yield Item(shown(file), label, Reader(os.path.join(self.root, file), shown(file)))
                    index += 1

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"folder")
        for found, of_split in sorted(self.layout.counts.items()):
            for name in sorted(of_split):
                for file in self._files(found, name):
                    status = os.stat(os.path.join(self.root, file))
                    digest.update(f"{found} {file} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Reader:
    """Reads one file when asked; an object, not a closure, so that it can be sent to another process."""

    path: str
    name: str

    def __call__(self) -> bytes:
        return read_file(self.path, self.name)


class TarTree(_Tree):
    """The same trees in a .tar, .tar.gz or .tgz.  Order: that of the archive (so is "every tenth").  Nothing is extracted."""

    kind = "tar"

    def __init__(self, path: str | os.PathLike) -> None:
        path = Path(path)
        pictures: Counter[tuple[str, ...]] = Counter()
        names: dict[tuple[str, ...], str] = {}
        unsafe, inner, length, words = 0, 0, 0, 0
        for member in walk(path):
            parts = member.parts
            if parts is None:
                unsafe += 1
            elif _visible(parts) and is_picture(parts[-1]):
                length += len(member.name) * (parts[:-1] not in pictures)
                pictures[parts[:-1]] += 1
            elif parts[-1] in NAMES_FILES and parts[:-1] not in names and member.size <= MAX_NAMES_BYTES - words:
                names[parts[:-1]] = member.read().decode("utf-8", "replace")
                words += member.size + len(member.name)
            inner += member.name.endswith(".tar")
            if len(pictures) > MAX_FOLDERS or length > MAX_FOLDER_NAMES:
                raise DataError(f"{shown(path)} has more than {len(pictures) - 1} folders; is this an archive of a data set?")
        if not pictures and inner:
            raise DataError(f"{shown(path)} is an archive of archives that are not called nXXXXXXXX.tar; unpack them")
        layout = resolve(pictures, shown(path))
        super().__init__(path, layout, read_names(names.get(layout.prefix, "")))
        self.forward_only = path.name.lower().endswith("gz")
        if unsafe:
            self.notes.append(f"{unsafe} members with absolute, climbing or endless names are left out")

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        index, seen = 0, Counter()
        for member, (found, name) in self._pictures():
            chosen = self._chosen(split, found, name, seen[found, name])
            seen[found, name] += 1
            if chosen:
                if index >= start:
                    yield Item(member.label, self.labels[name], read_or_refuse(member))
                index += 1

    def _pictures(self) -> Iterator[tuple[Member, tuple[str, str]]]:
        for member in walk(self.path):
            parts = member.parts
            if parts is not None and _visible(parts) and is_picture(parts[-1]) and (where := self.layout.locate(parts[:-1])):
                yield member, where

    def fingerprint(self) -> str:
        return hashlib.sha256(b"tar" + stamp(self.path).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _visible(parts: Iterable[str]) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _folders(top: Path) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(folder relative to `top`, picture names in it) for every visible folder below; links are followed, but never back into a folder
    on the way to them, so that what is found below a folder does not depend on where the walk began."""
    waiting = [((), frozenset(_identity(parent) for parent in top.absolute().parents))]
    while waiting:
        folder, above = waiting.pop()
        place = top.joinpath(*folder)
        try:
            if (identity := _identity(place)) in above:
                continue
            with os.scandir(place) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if _visible((entry.name,))]
        except OSError as error:
            raise DataError(f"{shown(place)} cannot be listed ({error.strerror}); check its permissions") from error
        yield folder, [name for name, below in found if not below and is_picture(name)]
        waiting += [((*folder, name), above | {identity}) for name, below in sorted(found, reverse=True) if below]


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
