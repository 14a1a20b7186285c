"""The same training step in PyTorch, as its users write it (eager) and in the fastest eager form known for this network.

Imported only on `--peer torch`.  Differences, all in PyTorch's favour or neutral: the asymmetric padding of conv1 is in the
input already (227 pixels for 224), LRN runs over all channels and not by column, dropout is the inverted one.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ..layers import LRN, Conv, Dropout, Layer, Linear, MaxPool, ReLU
from ..net import Net
from ..spec import pair
from .plain import channels_first, refuse_unknown

VERSION = torch.__version__


def _lrn(layer: LRN):
    """torch divides alpha by n, the paper does not."""
    alpha = layer.alpha if layer.divide_by_n else layer.alpha * layer.n
    return lambda x: F.local_response_norm(x, layer.n, alpha=alpha, beta=layer.beta, k=layer.k)


def _lrn_slices(layer: LRN):
    """The window as a sum of slices, which autograd and the CPU handle several times faster than pad and avg_pool3d."""
    alpha, reach = layer.alpha / (layer.n if layer.divide_by_n else 1), layer.n // 2

    def norm(x):
        C = x.shape[1]
        wide = F.pad(x * x, (0, 0, 0, 0, reach, reach))
        scale = sum(wide[:, i:i + C] for i in range(layer.n)) * alpha + layer.k
        root = torch.rsqrt(scale)
        return x * (root * torch.sqrt(root)) if layer.beta == 0.75 else x * scale ** -layer.beta
    return norm


class TorchPeer:
    """`step(labels)` on `input` (N, C, H, W); NCHW with F.local_response_norm, or with `best` channels_last and a sliced LRN."""

    def __init__(self, net: Net, layers: list[Layer], x: np.ndarray, *, best: bool = False, threads: int = 2, rate: float = 0.01,
                 momentum: float = 0.9, decay: float = 0.0005):
        refuse_unknown(layers)
        torch.set_num_threads(threads)
        modules = []
        weights = channels_first(net, layers)
        first = pair(layers[0].pad) if isinstance(layers[0], Conv) else (0, 0)
        uneven = first[0] != first[1]
        for layer in layers[:-1]:
            if isinstance(layer, Conv):
                w, _ = weights[layer.name]
                pad = 0 if layer is layers[0] and uneven else pair(layer.pad)[0]
                module = torch.nn.Conv2d(w.shape[1] * layer.groups, layer.K, layer.kernel, layer.stride, pad, groups=layer.groups)
            elif isinstance(layer, Linear):
                if not any(isinstance(module, torch.nn.Flatten) for module in modules):
                    modules.append(torch.nn.Flatten())
                module = torch.nn.Linear(weights[layer.name][0].shape[1], layer.K)
            elif isinstance(layer, ReLU):
                module = torch.nn.ReLU(inplace=True)
            elif isinstance(layer, MaxPool):
                module = torch.nn.MaxPool2d(layer.window, layer.stride, ceil_mode=True)
            elif isinstance(layer, Dropout):
                module = torch.nn.Dropout(1 - layer.keep)
            elif isinstance(layer, LRN):
                module = _Function(_lrn_slices(layer) if best else _lrn(layer))
            if layer.name in weights:
                with torch.no_grad():
                    for parameter, value in zip((module.weight, module.bias), weights[layer.name], strict=True):
                        parameter.copy_(torch.from_numpy(value))
            modules.append(module)
        self.model = torch.nn.Sequential(*modules)
        if uneven:
            x = np.pad(x, ((0, 0), (0, 0), first, first))
        self.input = torch.from_numpy(np.ascontiguousarray(x))
        if best:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.input = self.input.contiguous(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=momentum, weight_decay=decay)

    def step(self, labels: np.ndarray) -> float:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.input), torch.from_numpy(labels.astype(np.int64)))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class _Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
