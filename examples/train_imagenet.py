"""Train AlexNet: python examples/train_imagenet.py [DATA]

Without DATA: the `tiny` recipe on pictures drawn on the spot, in a few minutes on two cores.  With DATA (folder per class,
tar of one, official ILSVRC archives, CIFAR-10 binary batches, a prepared store): the `paper` recipe unless --recipe says otherwise.
"""

import sys

from minialex.flags import guarded, training_parser
from minialex.train import Trainer
from minialex.verbs import train


def main() -> None:
    options = training_parser().parse_args()
    if options.evaluate:
        return train.main(options)
    with Trainer(vars(options), resume=options.resume, quiet=options.quiet, checkpoint_minutes=options.checkpoint_minutes,
                 stall_timeout=options.stall_timeout) as trainer:
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(batch)                # input transform, fprop, bprop, update (paper, section 5)
            trainer.validate(epoch)                 # error, schedule, metrics.jsonl, curves.png, checkpoint


if __name__ == "__main__":
    sys.exit(guarded(main))
