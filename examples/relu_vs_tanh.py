"""ReLU against tanh: the paper's figure 1 on a few hundred drawn pictures.    python examples/relu_vs_tanh.py

Section 3.1 trains a four-layer network on CIFAR-10, without any regularisation, until it errs on 25 % of its training pictures, once
with each unit at the learning rate that suits it: ReLU takes six epochs, tanh 36.  This program asks the same of 480 pictures of
coloured forms.  They are few and easy, so do not expect the paper's ratio: it shows how such a comparison is made.
"""

import argparse
import sys
import tempfile

from minialex.data import synthetic
from minialex.figures.canvas import canvas
from minialex.flags import guarded, whole
from minialex.spec import Diverged
from minialex.train import Trainer

RATES = {"relu": (0.001, 0.002, 0.003), "tanh": (0.01, 0.02, 0.03)}


def errors(unit: str, rate: float, data: str, epochs: int, folder: str) -> list[float]:
    """Training error in per cent of each epoch, up to the first of at most 25."""
    asked = {"data": data, "store": f"{data}/store", "recipe": f"figure1(width=0.5, unit='{unit}')", "batch": 32, "rate": rate,
             "epochs": epochs, "output_dir": f"{folder}/{unit}-{rate}"}
    found = []
    try:
        with Trainer(asked, quiet=True, pictures=False) as trainer:
            for epoch in trainer.epochs():
                for batch in trainer.batches(epoch):
                    trainer.learn(batch)
                trainer.validate(epoch)
                found.append(trainer.journal.epochs()[-1]["train"]["top1"])
                if found[-1] <= 25:
                    break
    except Diverged:                                                # too high a rate
        found.append(100.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-class", type=whole(4), default=40, help="training pictures of each of the 12 classes (default: 40)")
    parser.add_argument("--epochs", type=whole(1), default=20, help="at most (default: 20)")
    parser.add_argument("--picture", default="relu_vs_tanh.png", help="where to draw (default: relu_vs_tanh.png)")
    options = parser.parse_args()
    best = {}
    with tempfile.TemporaryDirectory() as folder:
        data = str(synthetic.make(f"{folder}/pictures", options.per_class, size=32))
        for unit, rates in RATES.items():
            runs = {rate: errors(unit, rate, data, options.epochs, folder) for rate in rates}
            for rate, found in runs.items():
                print(f"{unit} at rate {rate:g}: {found[-1]:.1f} % training error after {len(found)} epochs")
            best[unit] = min(runs.items(), key=lambda run: (run[1][-1] > 25, len(run[1]), run[1][-1]))
    (_, relu), (_, tanh) = best.values()
    if max(relu[-1], tanh[-1]) <= 25:
        print(f"25 % after {len(relu)} epochs with ReLU and {len(tanh)} with tanh, {len(tanh) / len(relu):.1f} times as many "
              "(the paper: 6 and 36, 6.0 times)")
    else:
        print("not both came down to 25 %, so there is no ratio: give more --epochs")
    with canvas(options.picture, 5.6, 3.6) as figure:
        axes = figure.subplots()
        for (unit, (rate, found)), line, colour in zip(best.items(), ("-", "--"), ("#0072B2", "#D55E00"), strict=True):     # as printed
            axes.plot(range(1, len(found) + 1), found, line, color=colour, linewidth=2, label=f"{unit}, rate {rate:g}")
        axes.axhline(25, color="0.5", linewidth=1, linestyle=":")
        axes.set(xlabel="epoch", ylabel="training error, %", ylim=(0, 100), title=f"{12 * options.per_class} drawn pictures, four layers")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    sys.exit(guarded(main))
