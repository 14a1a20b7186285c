"""What the oracle does in one trip through memory (nothing), and in which precision it multiplies."""

from __future__ import annotations

from ...spec import MiniAlexError


def fused() -> tuple[str, ...]:
    """None: the oracle's fused ops are compositions, which gain nothing."""
    return ()


def set_precision(name: str) -> None:
    """Accepts "float32" alone: NumPy multiplies in the type of its arrays."""
    if name != "float32":
        raise MiniAlexError(f"set_precision: the reference backend multiplies in the type of its arrays and knows no {name!r}; "
                            "use float32, or the cuda backend for tf32, bf16, bf16x3 and bf16x6")


def storage(dtype: str) -> str:
    """`dtype`: activations are stored as they are computed."""
    return dtype
