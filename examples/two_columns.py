"""The two columns of AlexNet on two devices, and on one: the same network.    python examples/two_columns.py

Section 3.2 of the paper spreads the network over two GPUs, half of the maps on each, which talk in certain layers only.  Here that is a
placement: this program trains one network in both, compares every bit, and draws what each device does in a step.  The devices are
make-believe ones that run the CUDA kernels on the CPU; on a machine with two GPUs, --device cuda:0,cuda:1.
"""

import argparse
import sys

import numpy as np

from minialex import figures
from minialex.bench.timeline import GTX580, exposed, length, step
from minialex.column_net import ColumnNet
from minialex.columns import exchange_points, plan
from minialex.config import Config
from minialex.flags import guarded
from minialex.net import Net
from minialex.nets import recipe
from minialex.optim import SGD
from minialex.placement import places


def train(net, classes: int, steps: int) -> tuple[list[float], SGD]:
    """Losses of a few steps on pictures that are noise around a brightness of their class."""
    sgd, losses, random = SGD(net), [], np.random.default_rng(0)
    for number in range(steps):
        labels = random.integers(0, classes, net.batch).astype(np.int32)
        pictures = 40 * random.standard_normal(net.shapes[0].array(net.batch)) + 10 * labels[:, None, None, None]
        for ops, x in zip(net.places, net.inputs(), strict=True):       # both devices see all pictures
            ops.from_host(pictures.astype(np.float32), out=x)
        losses.append(net.fprop(labels, training=True, step=number))
        net.bprop()
        sgd.step(0.001)
    return losses, sgd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="emulated:0,emulated:1")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--picture", default="two_columns.png")
    options = parser.parse_args()
    config = Config("tiny", device=options.device)
    tiny, devices = recipe("tiny"), places(config)
    layers = tiny.build(tiny.classes)

    two = ColumnNet(layers, tiny.input, 16, devices, seed=1)            # column a on the first, b on the second
    one = Net(layers, tiny.input, 16, places(Config("tiny", device=config.device_names[0]))[0], seed=1)
    (losses, sgd), (others, other) = train(two, tiny.classes, options.steps), train(one, tiny.classes, options.steps)
    print(f"{options.steps} steps of tiny on {options.device} and on {config.device_names[0]}: losses {losses[0]:.4f} ... {losses[-1]:.4f}")
    same = losses == others
    pairs = {"weights": (two.params, one.params), "gradients": (two.grads, one.grads), "momentum": (sgd.velocity, other.velocity)}
    for what, (a, b) in pairs.items():
        equal = [np.array_equal(a.numpy(key), b.numpy(key)) for key in a]
        worst = max(float(np.abs(a.numpy(key) - b.numpy(key)).max()) for key in a)
        print(f"  {what}: {sum(equal)} of {len(equal)} arrays have the same bits, largest difference {worst}")
        same = same and all(equal)
    print("the placement changes nothing" if same else "THE PLACEMENTS DIFFER")

    paper = recipe("paper")                                             # nothing below is computed: only asked, and counted
    layers = paper.build(paper.classes)
    print("\n" + plan(layers, paper.input, 128, config.device_names) + "\n")
    net, panels = ColumnNet(layers, paper.input, 128, devices), []
    for overlap in (True, False):
        net.exchange.overlap = overlap
        spans = step(net)
        alone = max(exposed(spans, place) for place in range(len(devices)))
        name = "copies travel while the own column is computed" if overlap else "each copy ends before the next product begins"
        panels.append((f"{name}: {1e3 * length(spans):.0f} ms, {1e3 * alone:.1f} ms of them copies that nothing hides", spans))
        print(panels[-1][0])
    joint = [point.layer for point in exchange_points(layers, paper.input)]
    figures.timeline(panels, joint, options.picture, title="A training step of the paper's network, batch 128: computed from the recorded "
                     f"order and arithmetic, not measured\n{GTX580.name}")
    print(f"picture: {options.picture}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
