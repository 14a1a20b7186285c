"""Data parallel over processes: the same run on any number of ranks up to the order of sums, the same bits from run to run, and an
end with words when a rank fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ranks import COLUMNS, MISSING, PROGRAM, mpi, sentences, train, trained
from runs import ROOT, small_store, train_in_child, weights

from minialex import backends, distributed
from minialex.checkpoint import candidates, load
from minialex.data import Loader, open_store
from minialex.data.loader import share
from minialex.net import Net
from minialex.nets import recipe
from minialex.spec import BackendUnavailable, MiniAlexError

needs_mpi = pytest.mark.skipif(MISSING is not None, reason=f"{MISSING}; pip install -e '.[mpi]'")
FLAGS = ("--recipe", "tiny", "-b", "36", "--epochs", "2", "--seed", "1", "-q")      # 96 pictures: 36, 36 and a last batch of 24


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory):
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    done = train_in_child(store, *FLAGS, "--output-dir", run)
    assert done.returncode == 0, done.stderr
    return run


def assert_close(one, two) -> None:
    """Two runs that differ by the order of their sums.  Rounding moves a sum of float32 gradients by a few units in the seventh place of
    its largest; six steps of momentum .9 at most add those up: 1e-5 of the array's largest number holds all of it, and is a hundredth
    of what one image more or less would change.  (A ReLU or a maximum decided otherwise by rounding would show: not with this seed.)"""
    (a, state), (b, other) = (load(candidates(run)[0]) for run in (one, two))
    for name in a:
        difference = np.abs(a[name].astype(np.float64) - b[name]).max()
        assert difference <= 1e-5 * np.abs(a[name]).max(), (name, difference, np.abs(a[name]).max())
    assert (state["step"], state["epoch"]) == (other["step"], other["epoch"])
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    assert len(rows[0]) == len(rows[1])
    for x, y in zip(*rows, strict=True):
        for part in ("train", "validation"):
            assert x[part]["images"] == y[part]["images"] and x[part]["top1"] == y[part]["top1"]
            assert y[part]["loss"] == pytest.approx(x[part]["loss"], rel=1e-5)


# ---------------------------------------------------------------- without MPI
@pytest.mark.parametrize("n, size", [(128, 4), (24, 5), (1, 5), (0, 3), (7, 7)])
def test_shares_are_the_whole_once(n, size):
    parts = [share(n, rank, size) for rank in range(size)]
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(n))
    assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1


def test_the_loaders_of_all_ranks_read_each_batch_once(store):
    data, tiny = open_store(store, 128), recipe("tiny")
    own = dict(augmentation=tiny.augmentation, crop=tiny.crop, batch=36, seed=3)
    whole = list(Loader(data.split("train"), data, **own).batches(1))
    parts = [list(Loader(data.split("train"), data, **own, rank=rank, ranks=5).batches(1)) for rank in range(5)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for name in ("images", "labels", "pictures", "offsets", "flips", "noise"):
            assert np.array_equal(np.concatenate([getattr(b, name) for b in shares]), getattr(batch, name)), name
        assert [b.place for b in shares] == [b.first - batch.first for b in shares] == [len(batch) * r // 5 for r in range(5)]
        assert {b.total for b in shares} == {len(batch)}


@pytest.mark.parametrize("device, rank, size, mine", [
    ("cpu", 1, 4, "cpu"), ("emulated:0", 3, 4, "emulated:0"), ("cuda:0", 0, 1, "cuda:0"), ("cuda:0,cuda:1", 0, 1, "cuda:0,cuda:1"),
    ("cuda:0,cuda:1", 1, 2, "cuda:1"), ("emulated:0,emulated:1,emulated:2,emulated:3", 1, 2, "emulated:2,emulated:3")])
def test_devices_are_dealt_out(device, rank, size, mine):
    assert distributed.my_devices(device, rank, size) == mine


@pytest.mark.parametrize("device, size", [("cuda:0", 2), ("cuda:0,cuda:1", 4), ("cuda:0,cuda:1,cuda:2", 2)])
def test_devices_that_cannot_be_dealt_out(device, size):
    with pytest.raises(MiniAlexError, match=f"--device {device}: .* cannot be dealt out equally to the {size} ranks"):
        distributed.my_devices(device, 0, size)


@pytest.mark.parametrize("words, ranks", [
    ({}, 1), ({"PMI_SIZE": "4"}, 4), ({"OMPI_COMM_WORLD_SIZE": "2"}, 2), ({"WORLD_SIZE": "3"}, 3), ({"PMI_SIZE": "many"}, 1),
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1), ({"SLURM_STEP_NUM_TASKS": "8"}, 8)])
def test_the_launcher_is_found_in_the_environment(monkeypatch, words, ranks):
    for name in distributed.SIZES:
        monkeypatch.delenv(name, raising=False)
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    assert distributed.launched() == ranks
    assert "mpi4py" not in sys.modules or MISSING is None


def test_without_mpi4py_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(BackendUnavailable, match=r"^2 ranks were started, but mpi4py .* pip install -e '\.\[mpi\]'"):
        distributed.Mpi()


class Two(distributed.Single):
    """A world of two ranks, of which this is the first; the other one's GPU is given."""

    size = local_size = 2

    def __init__(self, other: str):
        self.other = other

    def every(self, value):
        return [value, self.other]


@pytest.mark.parametrize("other, refused", [("elsewhere 0000:1", False), (f"{socket.gethostname()} 0000:3", True)])
def test_nccl_sums_in_place_and_takes_one_rank_a_gpu(monkeypatch, other, refused):
    """Against a stand-in for CuPy that writes down what it is told: on a real pair of GPUs this has not run yet."""
    told = []
    communicator = SimpleNamespace(allReduce=lambda *words: told.append(words))
    nccl = SimpleNamespace(available=True, get_unique_id=lambda: b"name", NCCL_FLOAT32=7, NCCL_SUM=0,
                           NcclCommunicator=lambda *words: told.append(words) or communicator)
    runtime = SimpleNamespace(deviceGetPCIBusId=lambda device: f"0000:{device}")
    for name, module in (("cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))), ("cupy.cuda", SimpleNamespace(nccl=nccl))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "")                  # to be put back behind the test
    monkeypatch.delenv("NCCL_NVLS_ENABLE")
    ops = SimpleNamespace(memory=SimpleNamespace(device=3, current=contextlib.nullcontext, stream=lambda: 99))
    if refused:
        with pytest.raises(MiniAlexError, match=r"several ranks share the GPU .* 0000:3: NCCL takes one rank on each"):
            distributed.Nccl(Two(other), ops)
        return
    distributed.Nccl(Two(other), ops).sum_(SimpleNamespace(data=SimpleNamespace(ptr=640), size=61))
    assert told == [(2, b"name", 0), (640, 640, 61, 7, 0, 99)] and os.environ["NCCL_NVLS_ENABLE"] == "0"


# ---------------------------------------------------------------- equal runs
# Net, shares and sums in float64: what differs from one process is rounding alone, 1e-12 beside gradients around 1.
EXACT = """
import sys
import numpy as np
from minialex.backends import reference
from minialex.data.loader import share
from minialex.distributed import world
from minialex.layers import Conv, Dropout, Linear, MaxPool, ReLU, SoftmaxLoss
from minialex.net import Net
from minialex.optim import SGD
from minialex.spec import Shape

layers = [Conv("conv1", 6, 3, std=.3), ReLU("relu1"), MaxPool("pool1", 2, 2), Linear("fc2", 16, std=.3), ReLU("relu2"),
          Dropout("drop2", keep=.5), Linear("fc3", 5, std=.3), SoftmaxLoss("loss")]
net = Net(layers, Shape(1, 8, 8, 3), 7, reference, seed=4, dtype="float64")
sgd, random, w, losses = SGD(net), np.random.default_rng(2), world(), []
for step in range(4):
    total = 7 if step < 3 else 1
    x, labels = random.standard_normal((1, total, 8, 8, 3)), random.integers(0, 5, total).astype(np.int32)
    first, stop = share(total, w.rank, w.size)
    loss = 0.
    if stop > first:
        net.input(stop - first)[...] = x[:, first:stop]
        loss = net.fprop(labels[first:stop], training=True, step=step, first=first, total=total) * (stop - first)
        net.bprop()
    losses.append(w.add(np.array([loss / total]))[0])
    w.sum_(net.grads, zero=stop == first)
    sgd.step(.1)
np.savez(f"{sys.argv[1]}-{w.rank}.npz", losses=losses, **net.params.host())
"""


@needs_mpi
def test_float64_steps_are_equal_and_so_are_the_ranks(tmp_path):
    """Seven images on two and on four ranks, dropout on, then a batch of one image, which leaves ranks without any."""
    arrays = {}
    for ranks in (1, 2, 4):
        done = mpi(ranks, "-c", EXACT, tmp_path / f"{ranks}")
        assert done.returncode == 0, done.stderr
        arrays[ranks] = [dict(np.load(tmp_path / f"{ranks}-{rank}.npz")) for rank in range(ranks)]
    for ranks in (2, 4):
        for name, want in arrays[1][0].items():
            assert np.abs(arrays[ranks][0][name] - want).max() <= 1e-12 * max(1, np.abs(want).max()), (ranks, name)
            assert all(np.array_equal(arrays[ranks][0][name], other[name]) for other in arrays[ranks]), (ranks, name)


@needs_mpi
def test_ranks_and_columns_together():
    if reason := backends.available()["emulated"]:
        pytest.skip(reason)
    done = mpi(2, "-c", COLUMNS, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 0 and done.stdout.split() == ["equal"] * 2, done.stderr


@needs_mpi
def test_ranks_with_a_device_for_each_column_end_in_the_same_bits(store, tmp_path):
    """Four devices are dealt out to two ranks, two columns each; beside it both ranks on one device, which they share."""
    if reason := backends.available()["emulated"]:
        pytest.skip(reason)
    flags = ("--recipe", "tiny", "-b", "4", "--limit-batches", "1", "--epochs", "1", "-q")
    sums = [trained(2, store, *flags, "--device", device, "--output-dir", tmp_path / str(len(device)), MINIALEX_EMULATED_DEVICES="4")
            for device in ("emulated:0", "emulated:0,emulated:1,emulated:2,emulated:3")]
    assert len({*sums[0], *sums[1]}) == 1


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_training_is_equal_to_one_process_and_repeatable(store, alone, tmp_path, ranks):
    sums = [trained(ranks, store, *FLAGS, "--output-dir", tmp_path / name) for name in ("one", "two")]
    assert len(sums[0]) == ranks and len({*sums[0], *sums[1]}) == 1, "ranks or runs differ"
    assert_close(alone, tmp_path / "one")
    assert (tmp_path / "one" / "curves.png").exists() and (tmp_path / "one" / "predictions.png").exists()
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@needs_mpi
def test_a_last_batch_that_leaves_ranks_without_an_image(store, tmp_path):
    """95 pictures on five ranks, then one picture, which is the last rank's."""
    flags = ("--recipe", "tiny", "-b", "95", "--epochs", "1", "--seed", "1", "-q", "--output-dir")
    assert train_in_child(store, *flags, tmp_path / "alone").returncode == 0
    assert len(set(trained(5, store, *flags, tmp_path / "five"))) == 1
    assert_close(tmp_path / "alone", tmp_path / "five")


@needs_mpi
def test_stopped_on_two_ranks_resumed_on_one_and_four(store, alone, tmp_path):
    """SIGTERM reaches rank 1 alone; both stop behind the same step, and rank 0 writes."""
    stopped = tmp_path / "stopped"
    done = train(2, store, *FLAGS, "--output-dir", stopped, fail="1 term 2")
    assert done.returncode == 143, done.stderr
    assert sentences(done) == [f"minialex: SIGTERM: stopped after step 2; go on with --resume {stopped}/checkpoint-2.safetensors"]
    for ranks in (1, 4):
        run = shutil.copytree(stopped, tmp_path / str(ranks))
        assert len(set(trained(ranks, *FLAGS, "--output-dir", run, "--resume", "auto"))) == 1
        assert_close(alone, run)


@needs_mpi
def test_the_commands_of_the_page(store, alone, tmp_path):
    """`-m mpi4py examples/...` prepares the pictures once; `minialex evaluate` shares the pictures and says its line once."""
    archives = store.parent / "archives"
    done = mpi(2, "-m", "mpi4py", ROOT / "examples" / "train_imagenet.py", archives, *FLAGS[:-1], "--limit-batches", "1",
               "--store", tmp_path / "store", "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("recipe tiny on cpu, 2 ranks") == 1 and done.stdout.count("epoch 2/2: ") == 1
    assert (tmp_path / "store" / "manifest.json").exists()
    rows = [json.loads(mpi(ranks, "-m", "minialex", "evaluate", alone, store, "--json").stdout) for ranks in (1, 2)]
    assert {key: rows[0][key] for key in ("top1", "top5", "images")} == {key: rows[1][key] for key in ("top1", "top5", "images")}
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-6)


@needs_mpi
def test_the_bench_of_sums(tmp_path):
    """It starts 2 and 4 ranks itself, checks the sums and writes what it measured."""
    done = subprocess.run([sys.executable, "-m", "minialex.bench", "allreduce", "--recipe", "tiny", "--rounds", "1", "--json",
                           tmp_path / "sums.json"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "sums.json").read_text())["tables"]
    parameters = weights_of("tiny")
    assert [(table["ranks"], table["bytes"]) for table in tables] == [(2, 4 * parameters), (4, 4 * parameters)]
    assert all(set(table["GB_per_second"]) == {"copy", "slices", "one call"} for table in tables)


def weights_of(name: str) -> int:
    found = recipe(name)
    net = Net(found.build(found.classes), found.input, 1, backends.load("cpu"))
    return sum(spec.size for spec in net.params.specs.values())


# ---------------------------------------------------------------- bad input
@needs_mpi
@pytest.mark.parametrize("ranks, flags, sentence", [
    (4, ("-b", "30"), "minialex: -b 30: a batch cannot be shared equally by 4 ranks; give -b 28, or start another number of ranks"),
    (2, ("--device", "cuda:0"), "minialex: --device cuda:0: 1 device cannot be dealt out equally to the 2 ranks of this machine; name one "
     "for each, such as --device cuda:0,cuda:1, or start fewer ranks"),
    (2, ("--lr", "1e30"), "minialex: the loss is ")])
def test_bad_input_is_said_once_and_leaves_nothing(store, tmp_path, ranks, flags, sentence):
    done = train(ranks, store, *FLAGS, *flags, "--output-dir", tmp_path / "run")
    assert done.returncode == (70 if "loss" in sentence else 2)
    assert len(sentences(done)) == 1 and sentences(done)[0].startswith(sentence), done.stderr
    assert not list(tmp_path.glob("run/*.safetensors")) and (done.returncode == 70 or not list(tmp_path.iterdir()))


@needs_mpi
def test_ranks_that_disagree_are_named(store, tmp_path):
    command = [sys.executable, "-c", PROGRAM, store, *FLAGS, "--output-dir", tmp_path / "run"]
    done = mpi(1, *command[1:], ":", "-n", "1", *command, "--lr", "0.02", "--seed", "9")
    assert done.returncode == 2
    assert sentences(done) == ["minialex: the ranks disagree: rank 1 of 2 has rate 0.02 (rank 0: 0.01), seed 9 (rank 0: 1); start all with "
                               "the same command, version and data"]
    assert not list(tmp_path.iterdir())


@needs_mpi
def test_what_one_rank_refuses_all_refuse(store, tmp_path):
    """Other data on rank 1: its store has another fingerprint; a store that is not there is named with the rank."""
    other = small_store(tmp_path / "other", seed=3)
    for place, sentence in ((other, "minialex: the ranks disagree: rank 1 of 2 has data "), (tmp_path / "none", "minialex: rank 1: ")):
        tail = (*FLAGS, "--output-dir", tmp_path / "run")
        done = mpi(1, "-c", PROGRAM, store, *tail, ":", "-n", "1", sys.executable, "-c", PROGRAM, place, *tail)
        assert done.returncode == 2 and len(sentences(done)) == 1 and sentences(done)[0].startswith(sentence), done.stderr
        assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- the end of a rank
@needs_mpi
@pytest.mark.parametrize("way", [("-c", PROGRAM), ("-m", "mpi4py", "-c", PROGRAM)])
def test_a_rank_that_raises_ends_all(store, tmp_path, way):
    done = mpi(2, *way, store, *FLAGS, "--output-dir", tmp_path / "run", fail="1 raise 2")
    assert done.returncode == 1 and "ZeroDivisionError: a fault of rank 1" in done.stderr, done.stderr
    assert sorted(sentences(done)) == ["minialex: rank 0: rank 1 ended before its time, so all end",
                                       "minialex: rank 1: a fault of the program; its lines above say where"]


@needs_mpi
def test_a_rank_whose_disk_is_full_ends_all_with_74(store, tmp_path):
    done = train(2, store, *FLAGS, "--output-dir", tmp_path / "run", fail="0 disk 2")
    assert done.returncode == 74 and "minialex: rank 0: here: No space left on device" in done.stderr, done.stderr
    assert "minialex: rank 1: rank 0 ended before its time, so all end" in sentences(done)


@needs_mpi
@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_killed_outright_ends_all_with_a_line_on_each(store, alone, tmp_path, victim):
    run = tmp_path / "run"
    done = train(3, store, *FLAGS, "--output-dir", run, fail=f"{victim} kill 5")
    assert done.returncode != 0
    assert sorted(sentences(done)) == [f"minialex: rank {rank}: rank {victim} ended before its time, so all end; the last checkpoint is "
                                       f"whole: go on with --resume {run}" for rank in range(3) if rank != victim], done.stderr
    assert load(candidates(run)[0])[1]["step"] == 3
    if victim:
        return
    assert len(set(trained(3, *FLAGS, "--output-dir", run, "--resume", "auto"))) == 1
    assert_close(alone, run)


@needs_mpi
@pytest.mark.parametrize("fail", ["1 kill 1"])
def test_no_process_of_a_run_stays_behind(store, tmp_path, fail):
    """Guardians end with their ranks, however those end: none is left a moment after mpiexec."""
    mark = f"MARK={tmp_path}".encode()
    with subprocess.Popen(["sleep", "60"], env=os.environ | {"MARK": str(tmp_path)}) as process:
        assert _becomes(True, mark), "the test must see what it looks for"
        process.kill()
    train(2, store, *FLAGS, "--limit-batches", "1", "--output-dir", tmp_path / "run", fail=fail, MARK=str(tmp_path))
    assert _becomes(False, mark)


def _becomes(there: bool, mark: bytes) -> bool:
    """Whether some process has `mark` in its environment, or none, within ten seconds."""
    for _ in range(200):
        found = b""
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                found += path.read_bytes()
        if (mark in found) is there:
            return True
        time.sleep(0.05)
    return False
