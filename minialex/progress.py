"""What a long job says while it runs: a bar on a terminal, plain lines in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm


def clock(seconds: float) -> str:
    """75 -> "1:15", 4000 -> "1:06:40"."""
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Progress:
    """`update(done, text)` as often as wanted; shown as a bar, or as one plain line every `interval` seconds."""

    def __init__(self, total: int, *, initial: int = 0, interval: float = 10.0, stream=None, quiet: bool = False):
        self.stream = stream or sys.stdout
        self.quiet, self.interval, self.last = quiet, interval, time.monotonic()
        self.bar = None
        if self.stream.isatty() and not quiet:
            form = "{percentage:3.0f}%|{bar:24}| {desc}"
            self.bar = tqdm(total=total, initial=initial, file=self.stream, bar_format=form, leave=False, dynamic_ncols=True)

    def update(self, done: int, text: str) -> None:
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.last >= self.interval:
            self.say(text)

    def say(self, text: str) -> None:
        """One line that stays, bar or not."""
        self.last = time.monotonic()
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        elif not self.quiet:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def reading(title: str, *, stream=None, quiet: bool = False) -> Callable[[int, int], None]:
    """A callback (bytes done, bytes in all) that shows how far the reading of large files has come, with rate and time left."""
    began, bar = time.monotonic(), None

    def update(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or Progress(total, stream=stream or sys.stderr, quiet=quiet)
        rate = max(1.0, done / max(1e-9, time.monotonic() - began))
        bar.update(done, f"{title}: {done / 2**30:.1f} of {total / 2**30:.1f} GiB, {rate / 2**20:.0f} MiB/s, "
                         f"{clock((total - done) / rate)} left")
        if done >= total:
            bar.close()
    return update
