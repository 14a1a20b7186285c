"""One value of local response normalisation, worked by hand.    python examples/lrn_by_hand.py

Section 3.3 of the paper, with k = 2, n = 5, alpha = 1e-4, beta = .75:

    b_i = a_i / (k + alpha * sum of a_j^2 over the n maps around i)^beta

Three things are easily got wrong: alpha multiplies the sum, not the mean; k is 2; and the window ends where the column ends, for the
maps behind it lie on the other GPU.  Most libraries that have a layer of this name take the mean, k = 1, and know no columns.
"""

import sys

import numpy as np

from minialex import backends
from minialex.flags import guarded
from minialex.layers import LRN, Run

A = (60, 30, 0, 90, 20), (40, 80, 10, 50, 70)           # five maps of column a and five of column b, at one place of one picture
MAP = 4                                                 # the last map of column a: 20


def normalised(layer: LRN, columns) -> np.ndarray:
    """What the layer makes of these maps.  An activation has the shape (columns, pictures, rows, places, maps of a column)."""
    ops = backends.load("cpu")
    x = np.float32(columns).reshape(len(columns), 1, 1, 1, -1)
    y = ops.empty(x.shape)
    layer.fprop(ops, x, y, Run())
    return y.reshape(-1)


def main() -> None:
    a = np.float64(A[0])
    window = a[max(0, MAP - 2):MAP + 3]                 # two maps to each side, clipped: there is nothing behind the last
    total = (window ** 2).sum()
    inside = 2 + 1e-4 * total
    by_hand = a[MAP] / inside ** 0.75
    print("column a:", *A[0], "   column b:", *A[1])
    print(f"\nthe last map of column a, {A[0][MAP]}, by hand")
    for what, value in (("window of five, clipped at the column's end", "  ".join(f"{v:g}" for v in window)),
                        ("sum of their squares", f"{' + '.join(f'{v:g}^2' for v in window)} = {total:g}"),
                        (f"2 + .0001 x {total:g}", f"{inside:.4f}"),
                        (f"{inside:.4f} ^ .75", f"{inside ** 0.75:.4f}"),
                        (f"{a[MAP]:g} / {inside ** 0.75:.4f}", f"{by_hand:.4f}")):
        print(f"  {what:<46}{value}")

    ways = {"minialex": normalised(LRN("norm1"), A),
            "over the border": normalised(LRN("norm1"), [A[0] + A[1]]),                     # all ten maps in one column
            "alpha/n, k = 1": normalised(LRN("norm1", k=1.0, divide_by_n=True), [A[0] + A[1]])}
    print("\n  map" + "".join(f"{name:>18}" for name in ways))
    for i, value in enumerate(A[0] + A[1]):
        note = "   <- by hand, at the border" if i == MAP else "   near the border" if i in (3, 5, 6) else ""
        print(f"{value:>5}" + "".join(f"{y[i]:18.4f}" for y in ways.values()) + note)
    wrong = abs(ways["minialex"][MAP] - by_hand) > 1e-4
    print("\nminialex says what the hand said" if not wrong else "\nMINIALEX AND THE HAND DIFFER")
    print("The last way is what a layer of this name computes elsewhere: weights learnt with one formula are wrong under another.")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
