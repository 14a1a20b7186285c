"""PyTorch's call for a row of the bench: the same op on the same numbers, in its best layout (channels_last), made beforehand.

Imported only on `--peer torch`.  Differences, in PyTorch's favour or neutral: asymmetric padding is in the input already, a norm
runs over all channels and not by column, dropout draws its own mask.  bf16 peers hold bf16 arrays, half the bytes of ours.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from ..spec import pair
from .rows import Row

aten = torch.ops.aten


@contextlib.contextmanager
def on_the_same_stream() -> Iterator[torch.cuda.Stream]:
    """PyTorch's work on CuPy's current stream, so that one pair of events times both."""
    import cupy
    stream = torch.cuda.ExternalStream(cupy.cuda.get_current_stream().ptr)
    with torch.cuda.stream(stream):
        yield stream


def _there(device: str) -> contextlib.AbstractContextManager:
    return on_the_same_stream() if device == "cuda" else contextlib.nullcontext()


class _Made:
    """Tensors of one row on a device in a type."""

    def __init__(self, row: Row, device: str, kind: torch.dtype):
        self.row, self.device, self.kind = row, device, kind

    def map(self, name: str, pad: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """(G, N, H, W, C) as (N, G*C, H, W), channels last."""
        a = self.row.inputs[name] if name in self.row.inputs else np.zeros(self.row.outputs[name], np.float32)
        G, N, H, W, C = a.shape
        a = np.ascontiguousarray(a.transpose(1, 0, 4, 2, 3).reshape(N, G * C, H, W))
        if pad != (0, 0):
            a = np.pad(a, ((0, 0), (0, 0), pad, pad))
        return torch.from_numpy(a).to(self.device, self.kind).contiguous(memory_format=torch.channels_last)

    def filters(self, name: str) -> torch.Tensor:
        """(K, R, S, C) as (K, C, R, S), channels last."""
        a = self.row.inputs[name] if name in self.row.inputs else np.zeros(self.row.outputs[name], np.float32)
        a = np.ascontiguousarray(a.transpose(0, 3, 1, 2))
        return torch.from_numpy(a).to(self.device, self.kind).contiguous(memory_format=torch.channels_last)

    def rows(self, name: str) -> torch.Tensor:
        """(G, N, F) as (N, G*F), other arrays as they are."""
        a = self.row.inputs[name]
        a = np.ascontiguousarray(a.transpose(1, 0, 2).reshape(a.shape[1], -1)) if a.ndim == 3 else a
        return torch.from_numpy(np.ascontiguousarray(a)).to(self.device, self.kind if a.dtype == np.float32 else None)


def _conv(row: Row, made: _Made) -> Callable:
    before, after = pair(row.constants["pad"])
    padded = (before, after) if before != after else (0, 0)
    pad, stride, groups = 0 if before != after else before, row.constants["stride"], row.constants["groups"]
    where = "x" if "x" in row.inputs or "x" in row.outputs else "dx"
    if row.op in ("conv_fprop", "conv_relu_fprop"):
        x, w, b = made.map("x", padded), made.filters("w"), made.rows("b")
        plain = lambda: F.conv2d(x, w, b, stride, pad, 1, groups)              # noqa: E731
        return plain if row.op == "conv_fprop" else lambda: F.relu_(plain())
    x, dy = made.map(where, padded), made.map("dy")
    wanted = [row.op == "conv_dgrad", row.op == "conv_wgrad", row.op == "conv_wgrad"]
    w = made.filters("w" if wanted[0] else "dw")
    return lambda: aten.convolution_backward(dy, x, w, [w.shape[0]], [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups, wanted)


def _linear(row: Row, made: _Made) -> Callable | None:
    if row.constants["groups"] != 1:
        return None
    if row.op in ("linear_fprop", "linear_relu_fprop"):
        x, w, b = made.rows("x"), made.rows("w"), made.rows("b")
        plain = lambda: F.linear(x, w, b)                                      # noqa: E731
        return plain if row.op == "linear_fprop" else lambda: F.relu_(plain())
    dy = made.rows("dy")
    if row.op == "linear_dgrad":
        w = made.rows("w")
        return lambda: dy @ w
    x = made.rows("x")
    return lambda: (dy.t() @ x, dy.sum(0))


def _norm(constants: dict) -> Callable:
    return lambda x: F.local_response_norm(x, constants["n"], alpha=constants["alpha"] * constants["n"], beta=constants["beta"],
                                           k=constants["k"])


def _pool(constants: dict) -> Callable:
    return lambda x: F.max_pool2d(x, constants["window"], constants["stride"], ceil_mode=True)


def _gradient(function: Callable, made: _Made) -> Callable:
    """dx by autograd of a graph made once."""
    x = made.map("x").requires_grad_()
    y = function(x)
    dy = made.map("dy")
    return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)


def _elementwise(row: Row, made: _Made) -> Callable | None:
    if row.op.endswith("fprop"):
        x = made.map("x")
        return {"relu_fprop": lambda: torch.relu(x), "tanh_fprop": lambda: torch.tanh(x), "sigmoid_fprop": lambda: torch.sigmoid(x)}[row.op]
    y, dy = made.map("y"), made.map("dy")
    return {"relu_bprop": lambda: aten.threshold_backward(dy, y, 0), "tanh_bprop": lambda: aten.tanh_backward(dy, y),
            "sigmoid_bprop": lambda: aten.sigmoid_backward(dy, y)}[row.op]


def _update(row: Row, made: _Made) -> Callable:
    (_, _, rate, decay), = row.constants["segments"]
    w = torch.from_numpy(row.changed["w"].copy()).to(made.device).requires_grad_()
    w.grad = torch.from_numpy(row.inputs["dw"]).to(made.device)
    options = dict(lr=rate, momentum=row.constants["momentum"], weight_decay=decay, fused=True)
    return torch.optim.SGD([w], **options).step


def peer_call(row: Row, precision: str, device: str) -> Callable[[], None] | None:
    """PyTorch's call, ready to be timed, or None where it has no such op."""
    with _there(device):                # autograd goes back on the stream of the way there
        call = _call(row, precision, device)
    return None if call is None else _timed(call, precision, device, autograd=row.op.endswith("bprop"))


def answers(row: Row, precision: str, device: str) -> Iterator[tuple[str, np.ndarray]]:
    """(output, PyTorch's value in the row's layout) for every output that a single tensor holds: what proves the peer is one."""
    call = _call(row, precision, device)
    if call is None or row.op.startswith(("dropout", "sgd", "lrn")):         # its own mask; in place; norms that cross columns
        return
    results = call()
    results = [r for r in (results if isinstance(results, tuple) else (results,)) if r is not None]
    names = ["loss"] if row.op == "loss_fprop" else list(row.outputs)
    for name, result in zip(names, results, strict=False):
        value, shape = result.detach().float().cpu().numpy(), row.outputs[name]
        if len(shape) == 5:
            value = value.reshape(shape[1], shape[0], shape[4], *shape[2:4]).transpose(1, 0, 3, 4, 2)
        elif len(shape) == 4:
            value = value.transpose(0, 2, 3, 1)
        elif len(shape) == 3:
            value = value.reshape(shape[1], shape[0], shape[2]).transpose(1, 0, 2)
        if value.shape == shape:                                             # dx of a padded input is larger
            yield name, value


def _call(row: Row, precision: str, device: str) -> Callable | None:
    made = _Made(row, device, torch.bfloat16 if precision == "bf16" else torch.float32)
    stem, constants = row.op.rpartition("_")[0], row.constants
    if stem in ("conv", "conv_relu"):
        call = _conv(row, made)
    elif stem in ("linear", "linear_relu"):
        call = _linear(row, made)
    elif stem in ("relu", "tanh", "sigmoid"):
        call = _elementwise(row, made)
    elif stem in ("lrn", "maxpool", "lrn_maxpool"):
        parts = [_norm(constants)] * stem.startswith("lrn") + [_pool(constants)] * stem.endswith("maxpool")
        whole = parts[0] if len(parts) == 1 else lambda x: parts[1](parts[0](x))
        if row.op.endswith("fprop"):
            x = made.map("x")
            call = lambda: whole(x)                                             # noqa: E731
        else:
            call = _gradient(whole, made)
    elif row.op == "dropout_fprop":
        x = made.map("x")
        call = lambda: F.dropout(x, 1 - constants["keep"], True)                # noqa: E731
    elif row.op == "sgd_update":
        call = _update(row, made)
    elif row.op == "loss_fprop":
        x, labels = made.rows("x"), made.rows("labels").long()
        call = lambda: F.cross_entropy(x, labels, reduction="none")             # noqa: E731
    else:
        call = None
    return call


def _timed(call: Callable, precision: str, device: str, autograd: bool) -> Callable[[], None]:
    """The call with its switches set, on the stream that is timed, warmed up (cuDNN chooses its algorithm there)."""
    def run() -> None:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision in ("tf32", "bf16")
        with _there(device), contextlib.nullcontext() if autograd else torch.no_grad():
            call()
    for _ in range(3):
        run()
    return _graphed(run) if device == "cuda" else run


def _graphed(run: Callable[[], None]) -> Callable[[], None]:
    """The call as a CUDA graph, as MiniAlex's own are: PyTorch's time for Python and dispatch lies outside too.  Where PyTorch cannot
    capture it, the call itself."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with on_the_same_stream() as stream, torch.cuda.graph(graph, stream=stream):
            run()
    except RuntimeError as error:
        print(f"peer not captured as a CUDA graph, timed with its dispatch: {str(error).splitlines()[0]}", file=sys.stderr)
        torch.cuda.synchronize()
        return run

    def replay() -> None:
        with on_the_same_stream():
            graph.replay()
    replay()
    torch.cuda.synchronize()
    return replay
