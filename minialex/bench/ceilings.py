"""What this machine reaches at best: bytes copied and products of matrices a second.  Every row of the bench is held against them."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from .clocks import CudaClock, HostClock

SIDE = 8192                 # of the matrices on a GPU; 1,024 on the host
ROUNDS = 7


def _median(clock, call: Callable[[], None]) -> float:
    ready = clock.prepare(call)
    return statistics.median(clock.milliseconds(ready, cold=False) for _ in range(ROUNDS))


def ceilings(clock: HostClock | CudaClock) -> dict[str, float]:
    """{"copy": GB/s, precision: TFLOP/s, ...}, measured now: read and written bytes both count, random matrices.
    Of split bf16 the third and the sixth part of bf16's rate, since that many products make one."""
    if isinstance(clock, CudaClock):
        return _on_gpu(clock)
    source = np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)
    target = np.empty_like(source)
    a = source[:1 << 20].reshape(1024, 1024)
    product = np.empty_like(a)
    return {"copy": 2 * source.nbytes / _median(clock, lambda: np.copyto(target, source)) / 1e6,
            "float32": 2 * 1024 ** 3 / _median(clock, lambda: np.matmul(a, a, out=product)) / 1e9}


def _gpu_copy(clock: CudaClock, cupy) -> float:
    source = cupy.random.standard_normal(1 << 28, dtype=cupy.float32)           # 1 GiB
    target = cupy.empty_like(source)
    return 2 * source.nbytes / _median(clock, lambda: cupy.copyto(target, source)) / 1e6


def _on_gpu(clock: CudaClock) -> dict[str, float]:
    """cuBLAS through PyTorch where it is installed (it knows tf32 and bf16), else float32 through CuPy."""
    import cupy
    found = {"copy": _gpu_copy(clock, cupy)}
    flops = 2 * SIDE ** 3
    try:
        import torch
    except ImportError:
        a = cupy.random.standard_normal((SIDE, SIDE), dtype=cupy.float32)
        out = cupy.empty_like(a)
        return found | {"float32": flops / _median(clock, lambda: cupy.matmul(a, a, out=out)) / 1e9}
    from .torch_ops import on_the_same_stream
    for precision, kind in (("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(SIDE, SIDE, device="cuda").to(kind)
        out = torch.empty_like(a)
        torch.cuda.synchronize()                                                # the numbers came on another stream
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        with on_the_same_stream():
            call = lambda a=a, out=out: torch.matmul(a, a, out=out)             # noqa: E731
            for _ in range(3):
                call()
            times = [clock.milliseconds(call, cold=False) for _ in range(ROUNDS)]
        torch.backends.cuda.matmul.allow_tf32 = before
        found[precision] = flops / statistics.median(times) / 1e9
    return found | {"bf16x3": found["bf16"] / 3, "bf16x6": found["bf16"] / 6}
