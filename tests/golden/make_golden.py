"""Golden vectors of `paper` and `source2012` at a sixteenth of the width, made by PyTorch's autograd in float64.

    python tests/golden/make_golden.py             writes the .npz files beside this script
    python tests/golden/make_golden.py --check     makes them again and compares: exit status 1 where they differ

It imports torch and numpy and nothing of MiniAlex, writes the two networks down a second time, keeps PyTorch's layout
(N, C, H, W) with the columns' channels side by side, and takes no gradient by hand.  What it does by itself: padding on one
side, pools that round up with a rule for ties, LRN within columns, the same-map norm, Philox and dropout's masks, and the
update with the rate inside the velocity.

Each file holds, for two images of 76 x 76 (18 x 18 after conv1, so that pools clip) and ten classes:
    image, labels, seed, rates, momentum, decay
    w0/LAYER.w|b    weights before;  w3/...  after three steps
    loss            of each step, averaged over the batch
    y/LAYER         output of every layer in the first step;  dy/LAYER  gradient of the loss with respect to it
    d/LAYER.w|b     gradient of every parameter in the first step
`*_strong` have large LRN constants, for at 1e-4 a wrong window changes nothing one could see.

Images and conv1's weights are multiples of 1/16 and 1/128 with few bits, so that conv1's sums are exact in any order and in
float32 too, and each image has a flat square: there the windows of pool1 hold true ties.  All other choices (the sign of
a ReLU's input, the winner of a window) are checked to be clear by a margin that float32 cannot cross.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
COLUMNS, BATCH, SIDE, CLASSES = 2, 2, 76, 10
SEED = (0x2012 << 32) | 0x0A1E
RATES, MOMENTUM, DECAY = (0.02, 0.002, 0.01), 0.9, 0.0005
MARGIN = 2e-5


def network(source: bool, alpha: float, spatial: float) -> list[tuple]:
    """(kind, name, settings) of every layer, in order.  `alpha` is what multiplies the plain sum of squares."""
    ties = "all" if source else "first"
    norm = dict(n=5, k=2.0, alpha=alpha, beta=0.75)
    relu1, norm1, pool1 = ("relu", "relu1", {}), ("lrn", "norm1", norm), ("pool", "pool1", dict(ties=ties))
    relu2, norm2, pool2 = ("relu", "relu2", {}), ("lrn", "norm2", norm), ("pool", "pool2", dict(ties=ties))
    relu5, pool5 = ("relu", "relu5", {}), ("pool", "pool5", dict(ties=ties))
    same_map = ("spatial", "spatial2", dict(n=5, k=1.0, alpha=spatial, beta=0.75))
    return [
        ("conv", "conv1", dict(shape=(6, 3, 11, 11), stride=4, pad=(0, 3), groups=1)),
        *((norm1, pool1, relu1) if source else (relu1, norm1, pool1)),
        ("conv", "conv2", dict(shape=(16, 3, 5, 5), stride=1, pad=(2, 2), groups=2)),
        *((relu2, norm2, same_map, pool2) if source else (relu2, norm2, pool2)),
        ("conv", "conv3", dict(shape=(24, 16, 3, 3), stride=1, pad=(1, 1), groups=1)), ("relu", "relu3", {}),
        ("conv", "conv4", dict(shape=(24, 12, 3, 3), stride=1, pad=(1, 1), groups=2)), ("relu", "relu4", {}),
        ("conv", "conv5", dict(shape=(16, 12, 3, 3), stride=1, pad=(1, 1), groups=2)),
        *((pool5, relu5) if source else (relu5, pool5)),
        ("linear", "fc6", dict(shape=(32, 64))), ("relu", "relu6", {}), ("dropout", "drop6", {}),
        ("linear", "fc7", dict(shape=(32, 32))), ("relu", "relu7", {}), ("dropout", "drop7", {}),
        ("linear", "fc8", dict(shape=(CLASSES, 32))),
    ]


# Each file's network, and the seed of its pictures and first weights: the first from 100 on whose choices are all clear.
VECTORS = {
    "paper": (100, dict(source=False, alpha=1e-4, spatial=0.0)),
    "source2012": (101, dict(source=True, alpha=1e-4 / 5, spatial=0.001 / 25)),
    "paper_strong": (100, dict(source=False, alpha=0.5, spatial=0.0)),
    "source2012_strong": (100, dict(source=True, alpha=0.5 / 5, spatial=0.2)),
}


def philox(counter: tuple[int, int, int, int], key: int) -> list[int]:
    """Philox4x32-10: four words of 32 bits."""
    a, b, c, d = counter
    k0, k1 = key % 2**32, key >> 32
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ k0, right % 2**32, (left >> 32) ^ d ^ k1, left % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [a, b, c, d]


assert philox((0, 0, 0, 0), 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]      # the authors' known answer


def mask(shape: tuple[int, int, int, int], step: int, layer: int, keep: float = 0.5) -> torch.Tensor:
    """1 where an element of (N, C, H, W) is kept.  Elements are numbered in the order height, width, channel."""
    N, C, H, W = shape
    result = torch.zeros(shape, dtype=torch.float64)
    for n in range(N):
        for h in range(H):
            for w in range(W):
                for c in range(C):
                    element = (h * W + w) * C + c
                    word = philox((element // 4, n, step, layer), SEED)[element % 4]
                    result[n, c, h, w] = word < keep * 2**32
    return result


def lrn(x: torch.Tensor, n: int, k: float, alpha: float, beta: float) -> torch.Tensor:
    """Across channels, each column by itself."""
    parts = []
    for column in x.chunk(COLUMNS, dim=1):
        channels = column.shape[1]
        sums = torch.stack([sum(column[:, j] ** 2 for j in range(max(0, c - n // 2), min(channels, c + n // 2 + 1)))
                            for c in range(channels)], dim=1)
        parts.append(column / (k + alpha * sums) ** beta)
    return torch.cat(parts, dim=1)


def same_map_norm(x: torch.Tensor, n: int, k: float, alpha: float, beta: float) -> torch.Tensor:
    """Over a square of n x n positions of one map, clipped at the border."""
    kernel = torch.ones(x.shape[1], 1, n, n, dtype=x.dtype)
    return x * (k + alpha * F.conv2d(x**2, kernel, padding=n // 2, groups=x.shape[1])) ** -beta


def pool(x: torch.Tensor, ties: str) -> torch.Tensor:
    """Maximum of 3 x 3 every 2, rounding up; all maxima of a window get its gradient, or the first in row order."""
    H, W = x.shape[2:]
    P, Q = -(-(H - 3) // 2) + 1, -(-(W - 3) // 2) + 1
    padded = F.pad(x, (0, 2 * Q + 1 - W, 0, 2 * P + 1 - H), value=-torch.inf)
    window = torch.stack([padded[:, :, r:r + 2 * P - 1:2, s:s + 2 * Q - 1:2] for r in range(3) for s in range(3)])
    y = window.detach().amax(0)
    winner = window == y
    runner_up = window.detach().masked_fill(winner, -torch.inf).amax(0)
    assert ((y - runner_up)[y > 0] > MARGIN).all(), "a window's winner is not clear: take another seed"
    if ties == "first":
        winner = winner & (winner.cumsum(0) == 1)
    through = torch.where(winner, window, 0.0).sum(0)
    return y + (through - through.detach())         # the value is the maximum, the gradient that of `through`


def relu(x: torch.Tensor) -> torch.Tensor:
    assert (x.detach()[x != 0].abs() > MARGIN).all(), "a ReLU's sign is not clear: take another seed"
    return x.clamp_min(0)


def forward(layers: list[tuple], params: dict, image: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
    """Output of every layer by name."""
    x, outputs = image, {}
    for ordinal, (kind, name, settings) in enumerate(layers):
        if kind == "conv":
            before, after = settings["pad"]
            x = F.conv2d(F.pad(x, (before, after, before, after)), params[f"{name}.w"], params[f"{name}.b"],
                         stride=settings["stride"], groups=settings["groups"])
        elif kind == "linear":
            x = F.linear(x.flatten(1), params[f"{name}.w"], params[f"{name}.b"])[:, :, None, None]
        elif kind == "dropout":
            x = x * mask(tuple(x.shape), step, ordinal)
        else:
            x = {"relu": relu, "lrn": lrn, "spatial": same_map_norm, "pool": pool}[kind](x, **settings)
        if x.requires_grad:
            x.retain_grad()
        outputs[name] = x
    return outputs


def inputs(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of blocks and noise with a flat square each, multiples of 1/16 between -2 and 2; their labels."""
    image = random.integers(-32, 32, (BATCH, 3, SIDE, SIDE))
    for n in range(BATCH):
        top, left = 4 * (2 + 3 * n), 4 * (7 - 2 * n)
        image[n, :, top:top + 35, left:left + 35] = np.array([9, -14, 21])[:, None, None] * (1 - 2 * n)
    return image / 16, random.integers(0, CLASSES, BATCH)


def first_weights(layers: list[tuple], random: np.random.Generator) -> dict[str, np.ndarray]:
    """float32 values of such a size that activations are near 1; biases are random too, so that each of them counts."""
    params = {}
    for kind, name, settings in layers:
        if kind in ("conv", "linear"):
            shape = settings["shape"]
            weight = random.standard_normal(shape) * (2.0 / np.prod(shape[1:])) ** 0.5
            bias = random.standard_normal(shape[0]) * 0.3
            if name == "conv1":
                weight, bias = np.round(weight * 128) / 128, np.round(bias * 128) / 128
            params[f"{name}.w"], params[f"{name}.b"] = weight.astype(np.float32), bias.astype(np.float32)
    return params


def make(name: str) -> dict[str, np.ndarray]:
    """The arrays of one file."""
    seed, settings = VECTORS[name]
    layers, random = network(**settings), np.random.default_rng(seed)
    image, labels = inputs(random)
    start = first_weights(layers, random)
    params = {key: torch.tensor(value, dtype=torch.float64, requires_grad=True) for key, value in start.items()}
    velocity = {key: torch.zeros_like(value) for key, value in params.items()}
    arrays = {"image": image.astype(np.float32), "labels": labels.astype(np.int32), "seed": np.uint64(SEED),
              "rates": np.array(RATES), "momentum": np.float64(MOMENTUM), "decay": np.float64(DECAY)}
    arrays |= {f"w0/{key}": value for key, value in start.items()}
    losses = []
    for step, rate in enumerate(RATES):
        outputs = forward(layers, params, torch.tensor(image), step)
        loss = F.cross_entropy(outputs["fc8"].flatten(1), torch.tensor(labels))
        for value in params.values():
            value.grad = None
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            arrays |= {f"y/{key}": value.detach().numpy().copy() for key, value in outputs.items()}
            arrays |= {f"dy/{key}": value.grad.numpy().copy() for key, value in outputs.items()}
            arrays |= {f"d/{key}": value.grad.numpy().copy() for key, value in params.items()}
        with torch.no_grad():
            for key, w in params.items():
                is_bias = key.endswith(".b")
                # The program's biases learn at twice the first rate for ever.  No bias is decayed.
                epsilon = 2 * RATES[0] if is_bias and settings["source"] else rate
                velocity[key] = MOMENTUM * velocity[key] - (0.0 if is_bias else DECAY) * epsilon * w - epsilon * w.grad
                w += velocity[key]
    arrays["loss"] = np.array(losses)
    arrays |= {f"w3/{key}": value.detach().numpy().copy() for key, value in params.items()}
    return arrays


def differences(made: dict[str, np.ndarray], path: Path) -> list[str]:
    """What of a stored file does not come out again, to twelve digits of each array's largest value."""
    with np.load(path) as stored:
        wrong = sorted(set(stored.files) ^ set(made))
        for key in set(stored.files) & set(made):
            was, now = stored[key].astype(np.float64), np.asarray(made[key]).astype(np.float64)
            if was.shape != now.shape or np.abs(was - now).max() > 1e-12 * max(1e-30, np.abs(was).max()):
                wrong.append(key)
    return wrong


def main() -> int:
    torch.set_num_threads(1)
    check, status = "--check" in sys.argv[1:], 0
    for name in [one for one in VECTORS if one in sys.argv[1:]] or VECTORS:
        made, path = make(name), HERE / f"{name}.npz"
        if check:
            wrong = differences(made, path)
            print(f"{name}: {'the same' if not wrong else 'differs in ' + ', '.join(wrong)}")
            status |= bool(wrong)
        else:
            np.savez_compressed(path, **made)
            print(f"{name}: loss {made['loss']}, {path.stat().st_size:,} bytes")
    return status


if __name__ == "__main__":
    sys.exit(main())
