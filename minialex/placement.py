"""Where a network lives: all columns on one device, or each on its own (paper, section 3.2).  The network is the same."""

from __future__ import annotations

from . import backends
from .column_net import ColumnNet
from .config import Config
from .layers import Layer
from .net import Net
from .spec import MiniAlexError, Shape


def places(config: Config) -> list:
    """The ops of each device that --device names, ready to compute in the precision asked."""
    named = config.backends
    found = [backends.load(*place) if len(named) == 1 else _place(config.device, *place) for place in named]
    for ops in found:
        ops.set_workers(config.workers)
        ops.set_precision(config.precision)
    return found


def _place(device: str, name: str, number: int):
    """Ops of their own: two places may lie on one device, each with a stream and a workspace."""
    try:
        ops = backends.load(name).kernels.on(number)
    except MiniAlexError as error:
        raise MiniAlexError(f"--device {device}: {error}; `minialex doctor` lists the devices") from error
    ops.memory.own_stream(ahead=True)
    return ops


def network(layers: list[Layer], input: Shape, batch: int, places: list, **options) -> Net | ColumnNet:
    """A Net on one place, a ColumnNet on several.  Options are those both have: seed, fuse, overlap, arenas."""
    if len(places) == 1:
        return Net(layers, input, batch, places[0], **options)
    return ColumnNet(layers, input, batch, places, **options)


def notes(net: Net | ColumnNet) -> list[str]:
    """What the user should know of a placement."""
    return net.exchange.notes if isinstance(net, ColumnNet) else []
