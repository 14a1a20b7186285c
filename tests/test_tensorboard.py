"""Event files, read back by TensorBoard itself where it is installed."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image
from runs import small_store

from minialex.figures.filters import mosaic
from minialex.statistics import Statistics
from minialex.tensorboard import TensorBoard, Writer, crc32c, event, image, masked, record, scalar
from minialex.train import Trainer


def read(folder):
    """TensorBoard's own view of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # its dependencies' own
        module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        events = module.EventAccumulator(str(folder), size_guidance={module.SCALARS: 0, module.IMAGES: 0})
        return events.Reload()


def steps(events, tag: str) -> list[int]:
    return [one.step for one in events.Scalars(tag)]


def test_crc32c():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43           # RFC 3720, B.4


def test_a_record_is_framed():
    data = b"123456789"
    crc = 0xE3069283
    mask = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert masked(data) == mask
    got = record(data)
    assert got[:8] == struct.pack("<Q", 9) and got[12:21] == data and got[21:] == struct.pack("<I", mask) and len(got) == 25


def test_scalars_and_pictures_round_trip(tmp_path):
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    writer = Writer(tmp_path)
    for step, value in ((1, 0.5), (300, -2.0), (2**40, 3e-30)):
        writer.append(event(step, values=scalar("loss", value) + scalar("other/ä", 1.0)))
    writer.append(event(301, values=image("kernels", picture)))
    events = read(tmp_path)
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(1, 0.5), (300, -2.0), (2**40, float(np.float32(3e-30)))]
    assert len(events.Scalars("other/ä")) == 3
    shown, = events.Images("kernels")
    assert (shown.step, shown.height, shown.width) == (301, 5, 7)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string))), picture)


@pytest.mark.parametrize("lost", [1, 4, 9, 30])
def test_a_torn_last_record_costs_only_itself(tmp_path, lost):
    writer = Writer(tmp_path)
    for step in (1, 2, 3):
        writer.append(event(step, values=scalar("loss", step)))
    writer.path.write_bytes(writer.path.read_bytes()[:-lost])
    assert steps(read(tmp_path), "loss") == [1, 2]


def test_a_resumed_run_supersedes_what_it_left(tmp_path):
    """Checkpoint behind step 2: steps 3 and 4 of the first course are forgotten, in files that sort one behind the other."""
    first = Writer(tmp_path)
    for step in (1, 2, 3, 4):
        first.append(event(step, values=scalar("loss", 10 + step)))
    second = Writer(tmp_path, done=2)
    second.append(event(3, values=scalar("loss", 3)))
    assert first.path != second.path and sorted(tmp_path.iterdir()) == [first.path, second.path]
    assert [(one.step, one.value) for one in read(tmp_path).Scalars("loss")] == [(1, 11), (2, 12), (3, 3)]


def test_events_of_a_run(tmp_path):
    store = small_store(tmp_path, per_class=2, val_per_class=1)
    asked = {"data": str(store), "recipe": "tiny", "batch": 12, "epochs": 1, "output_dir": str(tmp_path / "run")}
    losses = []
    with Trainer(asked, quiet=True, pictures=False) as trainer:
        board, watch = TensorBoard(trainer), Statistics(trainer, every=2)
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                losses.append(trainer.learn(batch))
                board.learned(losses[-1], row := watch.learned())
            trainer.validate(epoch)
            board.validated()
        kernels = mosaic(trainer.net.params.numpy(next(iter(trainer.net.params))), 16)
        journal = trainer.journal.epochs()[0]
    events = read(tmp_path / "run")
    assert [one.value for one in events.Scalars("batch/loss")] == [float(np.float32(loss)) for loss in losses] and len(losses) == 2
    for part in ("train", "validation"):
        for name in ("loss", "top1", "top5"):
            shown, = events.Scalars(f"{name}/{part}")
            assert (shown.step, shown.value) == (2, float(np.float32(journal[part][name])))
    assert events.Scalars("rate")[0].value == float(np.float32(journal["rate"]))
    name = next(iter(row["layers"]))
    assert [(one.step, one.value) for one in events.Scalars(f"ratio/{name}")] == [(2, float(np.float32(row["layers"][name]["ratio"])))]
    shown, = events.Images("kernels")
    picture = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
    assert np.array_equal(picture[::4, ::4], np.rint(255 * kernels).astype(np.uint8))
