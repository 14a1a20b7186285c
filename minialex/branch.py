"""Weight gradients beside the chain that a step waits for: a second stream of a device, and a branch of a captured step's graph.

    chain     makes dy of layer L | dgrad of L, which is dy of layer L - 1 | dgrad of L - 1 ...    | whatever reads gradients
    branch              forked -> | wgrad of L                             | wgrad of L - 1 ... -> | joined

Nobody but the update needs a weight's gradient, and the kernels of small layers leave part of a device idle in their last wave.  A branch
has a workspace of its own; what it reads nobody overwrites before it has been joined: activations live until the next pass, and each
gradient of an activation has memory of its own (memory.Gradients).  Weights that it updates early (SGD.early) the chain has read: it is
forked again before.  So two orders are all that is needed, and the bits are those of one stream.

In a graph, and in columns, the chain's kernels go before the branch's where both could run (runtime::stream_create, `ahead`).
"""

from __future__ import annotations

import weakref
from typing import Any


class Branch:
    """Of the stream of `chain`, ops of one device (backends/compiled.py).  `ops` are the same ones on the stream beside it."""

    def __init__(self, chain: Any):
        self.chain, self.ops = chain, chain.on(chain.memory.device)
        self.ops.memory.own_stream()
        self.extension, self._forked = chain.extension, False
        self._ready, self._done = events = [chain.extension.event_create(chain.memory.device) for _ in range(2)]
        weakref.finalize(self, _release, chain.extension, events).atexit = False

    def fork(self) -> Any:
        """The ops of the branch, behind all that the chain was asked so far."""
        self.extension.event_record(self._ready, self.chain.stream())
        self.extension.stream_wait(self.ops.stream(), self._ready)
        self._forked = True
        self.ops.set_precision(self.chain.precision())
        return self.ops

    def join(self) -> None:
        """Puts what the chain is asked from now on behind all that the branch was asked."""
        if self._forked:
            self.extension.event_record(self._done, self.ops.stream())
            self.extension.stream_wait(self.chain.stream(), self._done)
            self._forked = False


def _release(extension: Any, events: list[int]) -> None:
    for event in events:
        extension.event_destroy(event)
