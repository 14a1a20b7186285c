"""The same training step in PyTorch, as its users write it (eager) and in the fastest forms known for this network.

Imported only on `--peer torch`.  On the CPU two eager forms; on a GPU each precision eager and as one CUDA graph of the whole step.
With `--best` also compiled (on a GPU and graphed), which takes minutes.  Differences, in PyTorch's favour or neutral: the asymmetric
padding of conv1 is in the input already (227 pixels for 224), LRN runs over all channels and not by column, dropout is the inverted
one, a pool's gradient goes to the first of equal maxima.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..layers import LRN, AvgPool, Conv, Dropout, Layer, Linear, Local, MaxPool, ReLU, SpatialNorm
from ..net import Net
from ..spec import MiniAlexError, pair
from .plain import KNOWN, channels_first, refuse_unknown

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
        return _divided(x, scale, layer.beta)
    return norm


def _divided(x, scale, beta: float):
    """x / scale^beta without pow, which is slow, where it can be."""
    root = torch.rsqrt(scale)
    return x * (root * torch.sqrt(root)) if beta == 0.75 else x * scale ** -beta


def _spatial(layer: SpatialNorm, sliced: bool):
    """The sum over a square is n^2 times PyTorch's mean, whose squares are padded with zeros and counted whole."""
    alpha, reach = layer.alpha * layer.n ** 2, layer.n // 2

    def norm(x):
        scale = layer.k + alpha * F.avg_pool2d(x * x, layer.n, 1, reach)
        return _divided(x, scale, layer.beta) if sliced else x * scale ** -layer.beta
    return norm


@dataclass(frozen=True)
class Form:
    """How the step is written."""

    name: str
    note: str
    precision: str = "float32"              # "tf32": matrix products in tf32; "bf16": autocast, float32 master weights
    channels_last: bool = False
    sliced: bool = False                    # LRN from slices
    split: bool = False                     # a grouped convolution as two calls on halves
    graph: bool = False                     # the whole step replayed as one CUDA graph
    compiled: bool = False                  # the model by torch.compile; on a GPU with mode="max-autotune-no-cudagraphs"


ON_CPU = (Form("torch idiomatic", "eager, NCHW, F.local_response_norm"),
          Form("torch best eager", "channels_last, LRN from slices", channels_last=True, sliced=True))
COMPILED_ON_CPU = (Form("torch compiled", "torch.compile, channels_last, LRN from slices", channels_last=True, sliced=True, compiled=True),)
ON_GPU = (Form("torch float32", "eager, NCHW, F.local_response_norm"),
          Form("torch tf32", "eager, channels_last", "tf32", channels_last=True),
          Form("torch bf16", "eager, autocast, channels_last", "bf16", channels_last=True),
          Form("torch float32 graph", "one CUDA graph, NCHW, sliced LRN", sliced=True, graph=True),
          Form("torch tf32 graph", "one CUDA graph, channels_last, sliced LRN", "tf32", channels_last=True, sliced=True, graph=True),
          Form("torch bf16 graph", "one CUDA graph, channels_last, sliced LRN", "bf16", channels_last=True, sliced=True, graph=True))
COMPILED = (Form("torch bf16 best", "max-autotune, one CUDA graph, sliced LRN, split groups", "bf16", True, True, True, True, True),
            Form("torch bf16 best NCHW", "the same in NCHW, groups in one call", "bf16", False, True, False, True, True),
            Form("torch tf32 best", "max-autotune, one CUDA graph, sliced LRN, split groups", "tf32", True, True, True, True, True))


def forms(device: str, best: bool) -> tuple[Form, ...]:
    """Those worth comparing on a device."""
    eager, compiled = (ON_GPU, COMPILED) if device == "cuda" else (ON_CPU, COMPILED_ON_CPU)
    return eager + (compiled if best else ())


class TorchPeer:
    """`step(labels)` on `input` (N, C, H, W), with the weights of `net`."""

    def __init__(self, net: Net, layers: list[Layer], x: np.ndarray, *, form: Form = ON_CPU[0], device: str = "cpu", threads: int = 2,
                 rate: float = 0.01, momentum: float = 0.9, decay: float = 0.0005):
        refuse_unknown(layers, (*KNOWN, AvgPool, Local, SpatialNorm))
        torch.set_num_threads(threads)
        self.form, self.device = form, device
        first = pair(layers[0].pad) if isinstance(layers[0], Conv) else (0, 0)
        if first[0] != first[1]:
            x = np.pad(x, ((0, 0), (0, 0), first, first))
        self.input = torch.from_numpy(np.ascontiguousarray(x)).to(device)
        self.model = torch.nn.Sequential(*self._modules(net, layers, uneven=first[0] != first[1])).to(device)
        if form.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.input = self.input.contiguous(memory_format=torch.channels_last)
        self._labels = torch.zeros(len(x), dtype=torch.int64, device=device)
        options = dict(fused=True) if device == "cuda" else {}
        self.optimizer = torch.optim.SGD(self._groups(net, rate, decay), lr=rate, momentum=momentum, **options)
        how = dict(mode="max-autotune-no-cudagraphs") if device == "cuda" else {}
        self._forward = torch.compile(self.model, **how) if form.compiled else self.model
        self._graph = None
        if form.graph:
            self._capture()

    def _modules(self, net: Net, layers: list[Layer], uneven: bool) -> list[torch.nn.Module]:
        modules: list[torch.nn.Module] = []
        weights = channels_first(net, layers)
        for layer in layers[:-1]:
            if isinstance(layer, Local):
                module = _Local(layer, weights[layer.name])
            elif isinstance(layer, Conv):
                w, _ = weights[layer.name]
                pad = 0 if layer is layers[0] and uneven else pair(layer.pad)[0]
                kind = _Halves if self.form.split and layer.groups == 2 else torch.nn.Conv2d
                module = kind(w.shape[1] * layer.groups, layer.K, layer.kernel, layer.stride, pad, groups=layer.groups)
            elif isinstance(layer, Linear):
                if not any(isinstance(module, torch.nn.Flatten) for module in modules):
                    modules.append(torch.nn.Flatten())
                module = torch.nn.Linear(weights[layer.name][0].shape[1], layer.K)
            elif isinstance(layer, ReLU):
                module = torch.nn.ReLU(inplace=True)
            elif isinstance(layer, MaxPool):
                module = torch.nn.MaxPool2d(layer.window, layer.stride, ceil_mode=True)
            elif isinstance(layer, AvgPool):                # without padding a clipped window is divided by what it holds
                module = torch.nn.AvgPool2d(layer.window, layer.stride, ceil_mode=True)
            elif isinstance(layer, Dropout):
                module = torch.nn.Dropout(1 - layer.keep)
            elif isinstance(layer, LRN):
                module = _Function(_lrn_slices(layer) if self.form.sliced else _lrn(layer))
            elif isinstance(layer, SpatialNorm):
                module = _Function(_spatial(layer, self.form.sliced))
            if layer.name in weights:
                with torch.no_grad():
                    for parameter, value in zip((module.weight, module.bias), weights[layer.name], strict=True):
                        parameter.copy_(torch.from_numpy(value))
            modules.append(module)
        return modules

    def _groups(self, net: Net, rate: float, decay: float) -> list[dict]:
        """Parameters that learn and decay alike, in groups: the rates and decays of the layers."""
        groups: dict[tuple[float, float], list] = {}
        for parameter, spec in zip(self.model.parameters(), net.params.specs.values(), strict=True):
            groups.setdefault((spec.rate, spec.decay), []).append(parameter)
        return [dict(params=params, lr=rate * factor, weight_decay=decay * share) for (factor, share), params in groups.items()]

    def _switches(self) -> None:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.form.precision != "float32"

    def _eager(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        half = torch.autocast(self.device, torch.bfloat16) if self.form.precision == "bf16" else nullcontext()
        with half:
            loss = F.cross_entropy(self._forward(self.input), self._labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def _capture(self) -> None:
        """The whole step as one graph, after warm-up steps on a side stream; the weights have moved by then."""
        self._switches()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._eager()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = self._eager()

    def step(self, labels: np.ndarray) -> float:
        self._switches()
        self._labels.copy_(torch.from_numpy(labels.astype(np.int64)))
        if self._graph is None:
            self._loss = self._eager()
        else:
            self._graph.replay()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return float(self._loss.detach())


class _Halves(torch.nn.Conv2d):
    """A convolution in two groups as two calls: cuDNN and Inductor are weak at groups."""

    def forward(self, x):
        parts = zip(x.chunk(2, 1), self.weight.chunk(2), self.bias.chunk(2), strict=True)
        return torch.cat([F.conv2d(a, w, b, self.stride, self.padding) for a, w, b in parts], 1)


class _Local(torch.nn.Module):
    """Filters (K, C, R, S) of each position's own: windows side by side, and one matrix product for each position."""

    def __init__(self, layer: Local, weights: tuple[np.ndarray, np.ndarray]):
        super().__init__()
        if layer.groups != 1 or pair(layer.pad)[0] != pair(layer.pad)[1]:
            raise MiniAlexError(f"bench: the peer's local layers have one group and even padding; {layer.name} has not")
        self.layer, self.positions = layer, weights[0].shape[:2]
        self.weight, self.bias = (torch.nn.Parameter(torch.empty(value.shape)) for value in weights)

    def forward(self, x):
        layer, (P, Q) = self.layer, self.positions
        windows = F.unfold(x, layer.kernel, padding=pair(layer.pad)[0], stride=layer.stride)              # (N, C R S, P Q)
        y = windows.permute(2, 0, 1) @ self.weight.reshape(P * Q, layer.K, -1).transpose(1, 2)            # (P Q, N, K)
        return y.permute(1, 2, 0).reshape(len(x), layer.K, P, Q) + self.bias.permute(2, 0, 1)


class _Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
