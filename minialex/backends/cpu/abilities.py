"""What this backend does in one trip through memory, and in which precision it multiplies."""

from __future__ import annotations

from ...spec import MiniAlexError


def fused() -> tuple[str, ...]:
    """conv_relu_fprop cuts at 0 while a block's sums are in the cache; a norm with its pool gains nothing here."""
    return ("conv_relu",)


def set_precision(name: str) -> None:
    """Accepts "float32" alone: a CPU's products gain nothing from narrower ones."""
    if name != "float32":
        raise MiniAlexError(f"set_precision: the cpu backend multiplies in float32 and knows no {name!r}; "
                            "use float32, or the cuda backend for tf32, bf16, bf16x3 and bf16x6")


def storage(dtype: str) -> str:
    """`dtype`: activations are stored as they are computed."""
    return dtype
