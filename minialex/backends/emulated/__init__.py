"""The CUDA kernels on a machine without a GPU: the very files of cuda/, built by the host compiler (cuda/emulated/).

Each CUDA thread runs as a fiber, on make-believe devices with memories of their own.  For proofs and for learning, not for
speed.  `kernels` is the object behind the ops; kernels.variants("conv_fprop") names the rows of a table.
"""

from __future__ import annotations

try:
    from ... import _emulated
except ImportError as error:
    raise ImportError("the kernels are not built for this machine; with a C++ compiler and CMake "
                      f"`pip install -e .` builds them ({error})") from error

from ..compiled import Compiled
from .array import EmulatedMemory

kernels = Compiled(_emulated, EmulatedMemory(_emulated))
globals().update(kernels.exports())
