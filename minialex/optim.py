"""Learning exactly as in the paper's section 5, and its schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .column_net import ColumnNet
from .memory import Arena, ShardedArena
from .net import Net
from .nets.recipe import Constant, Plateau, Steps


class SGD:
    """v <- momentum v - decay rate w - rate dw;  w <- w + v.

    The rate is *inside* the velocity, so a change of rate acts on new gradients only.  The usual library form keeps it
    outside; the two part ways at the first change (tests/test_sgd.py, tests/test_golden.py).
    """

    def __init__(self, net: Net | ColumnNet, *, momentum: float = 0.9, decay: float = 0.0005, factors: dict[str, float] | None = None):
        """`factors` multiplies every rate of single layers, as fine-tuning wants it."""
        self.net, self.momentum, self.decay, self.factors = net, momentum, decay, factors or {}
        self.velocity: Arena | ShardedArena = net.params.like()
        self._cache: tuple = (None, ())

    def _segments(self, arena: Arena, rate: float, first_rate: float, layer_rates: dict[str, float]) -> tuple:
        segments = []
        for key, spec in arena.specs.items():
            base = layer_rates.get(key[0], rate if spec.anneal else first_rate) * self.factors.get(key[0], 1.0)
            start = arena.offsets[key]
            segments.append((start, start + spec.size, base * spec.rate, self.decay * spec.decay))
        return tuple(segments)

    def step(self, rate: float, *, first_rate: float | None = None, layer_rates: dict[str, float] | None = None) -> None:
        """One update with the gradients of the last bprop.  `first_rate` (default: rate) is what parameters that do not
        anneal learn at; `layer_rates` replaces the rate of whole layers (0 freezes one: its velocity only decays)."""
        self.update(self.segments(rate, first_rate=first_rate, layer_rates=layer_rates))

    def segments(self, rate: float, *, first_rate: float | None = None, layer_rates: dict[str, float] | None = None) -> list[tuple]:
        """step's rates as sgd_update takes them, for each arena."""
        asked = (rate, first_rate, tuple(sorted((layer_rates or {}).items())))
        if self._cache[0] != asked:
            rates = (rate, rate if first_rate is None else first_rate, layer_rates or {})
            self._cache = (asked, [self._segments(arena, *rates) for arena in self.net.params.arenas()])
        return self._cache[1]

    def update(self, segments: list[tuple], rates: list | None = None) -> None:
        """The update at these; `rates`, an array on the device of each arena, replaces theirs (graph.py)."""
        arenas = [each.arenas() for each in (self.net.params, self.velocity, self.net.grads)]
        for i, (w, v, dw, rows) in enumerate(zip(*arenas, segments, strict=True)):
            w.ops.sgd_update(w.flat, v.flat, dw.flat, segments=rows, momentum=self.momentum, **({"rates": rates[i]} if rates else {}))

    def early(self, segments: list[tuple], rates: list | None = None) -> Callable[[int, int, int, Any], None]:
        """`update` as what bprop is told to call when gradients are final: the top layers' weights once half of a place's numbers are
        among them, while the gradients below are made, and the others in the end.  Two updates have the bits of one."""
        arenas = [each.arenas() for each in (self.net.params, self.velocity, self.net.grads)]
        waiting: dict[int, int] = {}                        # place -> where the final gradients end that no update has taken

        def done(place: int, start: int, stop: int, ops: Any) -> None:
            stop = waiting.setdefault(place, stop)
            if start > 0 and 2 * (stop - start) < arenas[0][place].size:
                return
            del waiting[place]
            rows = [i for i, (first, *_) in enumerate(segments[place]) if start <= first < stop]
            here = tuple((first - start, last - start, *rest) for first, last, *rest in segments[place][rows[0]:rows[-1] + 1])
            w, v, dw = (each[place].flat[start:stop] for each in arenas)
            of_device = {"rates": rates[place][rows[0]:rows[-1] + 1]} if rates else {}
            ops.sgd_update(w, v, dw, segments=here, momentum=self.momentum, **of_device)
        return done


class Schedule:
    """Turns a declared schedule into rates.  `observe` after each epoch; `state`/`restore` go into checkpoints."""

    def __init__(self, spec: Constant | Plateau | Steps, rate: float):
        self.spec, self.first_rate = spec, rate
        self.best, self.waited, self.drops = float("inf"), 0, 0
        self.finished = False

    def rate(self, epoch: int) -> float:
        """Learning rate of epoch 0, 1, 2 ..."""
        drops = sum(epoch >= at for at in self.spec.at) if isinstance(self.spec, Steps) else self.drops
        return self.first_rate / getattr(self.spec, "divisor", 1.0) ** drops

    def layer_rates(self, epoch: int) -> dict[str, float]:
        """Layers that learn at a rate of their own in this epoch."""
        if not isinstance(self.spec, Steps):
            return {}
        return {layer: rate for at, layer, rate in sorted(self.spec.layer_rates) if epoch >= at}

    def observe(self, error: float) -> None:
        """Takes the validation error (per cent) of the epoch that just ended."""
        if not isinstance(self.spec, Plateau):
            return
        if error < self.best - self.spec.gain:
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited >= self.spec.patience:
            self.waited = 0
            if self.drops == self.spec.drops:
                self.finished = True
            else:
                self.drops += 1

    def state(self) -> dict:
        best = None if self.best == float("inf") else self.best
        return {"best": best, "waited": self.waited, "drops": self.drops, "finished": self.finished}

    def restore(self, state: dict) -> None:
        self.best = float("inf") if state["best"] is None else state["best"]
        self.waited, self.drops, self.finished = state["waited"], state["drops"], state["finished"]
