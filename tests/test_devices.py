"""Devices that are too small, not there, or not ready: one sentence, exit status 2, and what to do about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import finished, said
from conftest import load_or_skip

import minialex
from minialex import backends, cli
from minialex.memory import host_room
from minialex.net import Net
from minialex.nets import recipe
from minialex.optim import SGD
from minialex.spec import PRECISIONS, DeviceMemoryError

# What the extension says of each machine (cuda/runtime.cu); that it says so where it should, no test without such a machine can know.
REASONS = {
    "no driver": "no NVIDIA driver on this machine; install one, or use --device cpu",
    "no GPU": "the NVIDIA driver finds no GPU; is one there, and does CUDA_VISIBLE_DEVICES show it?",
    "old driver": "the NVIDIA driver is too old: it speaks CUDA 11.4, MiniAlex was built with CUDA 13.0; update the driver, or "
                  "rebuild with that CUDA toolkit",
}


def command(*words, **settings):
    return subprocess.run([sys.executable, "-m", "minialex", *words], env={**os.environ, **settings}, capture_output=True, text=True)


# ---------------------------------------------------------------- memory
def too_small(ops, name, batch, free, monkeypatch, **options):
    """(message, batch it advises) of a net on a device with `free` bytes; nothing may be allocated."""
    monkeypatch.setattr(ops.kernels.memory, "free", lambda: free)
    monkeypatch.setattr(ops.kernels.memory, "empty", lambda *_: pytest.fail("memory was taken before it was counted"))
    made = recipe(name)
    with pytest.raises(DeviceMemoryError) as raised:
        Net(made.build(made.classes), made.input, batch, ops, **options)
    message = str(raised.value)
    found = re.search(r"use a batch of (\d+) \(-b \1\)$", message)
    return message, int(found[1]) if found else 0


def test_what_does_not_fit_is_refused_with_what_does(monkeypatch):
    ops = load_or_skip("emulated")
    message, most = too_small(ops, "paper", 128, 1 << 30, monkeypatch)
    assert message.startswith("--device emulated:0: this network at batch 128 needs 1,9") and "1,073,741,824 are free" in message
    assert 1 < most < 128 and too_small(ops, "paper", most + 1, 1 << 30, monkeypatch)[1] == most
    assert too_small(ops, "paper", 128, 1 << 30, monkeypatch, arenas=2)[1] > most       # without velocities
    assert too_small(ops, "paper", 1, 1 << 20, monkeypatch)[0].endswith("not even one image fits, use --device cpu")


@pytest.mark.parametrize("name, batch, precision", [("tiny", 1, "float32"), ("tiny", 32, "float32"), ("cifar11", 2, "float32"),
                                                    ("tiny", 8, "bf16"), ("cifar11", 2, "bf16")])
def test_the_plan_covers_a_step(name, batch, precision):
    """And is not so far above it that it would refuse what runs."""
    ops = load_or_skip("emulated").kernels.on(0)
    ops.set_precision(precision)
    made, free = recipe(name), ops.memory.free()
    net = Net(made.build(made.classes), made.input, batch, ops)
    sgd = SGD(net)
    net.fprop(np.zeros(batch, np.int32), training=True)
    net.bprop()
    sgd.step(0.1)
    records = [ops.empty((batch, made.record, made.record, 3), "uint8") for _ in range(2)]      # one in use, one on its way,
    records += net.inputs(batch, 1)                                                             # and what is made of that one
    used = free - ops.memory.free()
    assert records and used <= net.bytes(batch) < 1.3 * used


def test_training_on_a_small_device_says_the_batch_that_then_runs(tmp_path):
    load_or_skip("emulated")
    words = ("train", "--device", "emulated:0", "--epochs", "1", "--limit-batches", "1", "-q", "--output-dir", tmp_path / "run")
    refused = command(*words, "-b", "64", MINIALEX_EMULATED_MEMORY="10")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()
    most = re.fullmatch(r"minialex: --device emulated:0: .* 10,485,760 are free; use a batch of (\d+) \(-b \1\)\n", refused.stderr)
    assert most, refused.stderr
    done = command(*words, "-b", most[1], MINIALEX_EMULATED_MEMORY="10")
    assert done.returncode == 0, done.stderr


def test_training_without_memory_says_the_batch_that_then_runs(tmp_path, monkeypatch, capsys):
    """A host grants what it has not, and ends the process when it is used: looked at before."""
    assert 0 < host_room() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + (1 << 40)
    monkeypatch.setattr("minialex.net.host_room", lambda: 8 << 20)
    words = ("train", "--device", "cpu", "--epochs", "1", "--limit-batches", "1", "-q", "--output-dir", tmp_path / "run")
    status, _, err = said(capsys, *words, "-b", "64")
    most = re.fullmatch(r"minialex: --device cpu: .* needs [\d,]+ bytes, 8,388,608 are free; use a batch of (\d+) \(-b \1\)\n", err)
    assert status == 2 and most and not (tmp_path / "run").exists(), err
    finished(capsys, *words, "-b", most[1])
    status, _, err = said(capsys, *words[:-1], tmp_path / "again", "-b", "1", "--recipe", "paper")
    assert status == 2 and "not even one image fits, take a smaller recipe" in err


# ---------------------------------------------------------------- devices that are not there
@pytest.fixture
def fake(monkeypatch):
    """Puts a make-believe extension in the place of minialex._cuda, for this test alone."""
    def install(reason):
        extension = SimpleNamespace(unavailable_reason=lambda: reason)
        monkeypatch.setitem(sys.modules, "minialex._cuda", extension)
        monkeypatch.setattr(minialex, "_cuda", extension, raising=False)
        monkeypatch.delitem(sys.modules, "minialex.backends.cuda", raising=False)
        monkeypatch.delattr(backends, "cuda", raising=False)
    return install


def refuses(capsys, *words):
    assert cli.main(list(map(str, words))) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "Traceback" not in err
    return err


def doctor_on_cuda(capsys):
    assert cli.main(["doctor"]) == 0
    return next(line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "cuda")


@pytest.mark.parametrize("machine", REASONS)
def test_a_machine_without_a_usable_gpu(fake, capsys, tmp_path, machine):
    fake(REASONS[machine])
    assert doctor_on_cuda(capsys).split(maxsplit=1)[1] == f"no: {REASONS[machine]}"
    err = refuses(capsys, "train", "--device", "cuda:0", "--output-dir", tmp_path / "run")
    assert err == f"minialex: cuda: {REASONS[machine]}\n" and not (tmp_path / "run").exists()


def test_a_gpu_without_cupy(fake, capsys, monkeypatch, tmp_path):
    fake("")
    monkeypatch.setitem(sys.modules, "cupy", None)          # as if it were not installed
    assert "CuPy is missing" in doctor_on_cuda(capsys)
    assert "pip install 'minialex[cuda13]'" in refuses(capsys, "train", "--device", "cuda:0", "--output-dir", tmp_path / "run")


@pytest.mark.parametrize("nvcc", ["/usr/local/bin/nvcc", None])
def test_kernels_that_were_not_built(fake, capsys, monkeypatch, tmp_path, nvcc):
    fake("")
    monkeypatch.delattr(minialex, "_cuda")
    monkeypatch.setitem(sys.modules, "minialex._cuda", None)
    monkeypatch.setattr("shutil.which", lambda tool: nvcc if tool == "nvcc" else None)
    line = doctor_on_cuda(capsys)
    assert "the CUDA kernels are not built: " in line and "`MINIALEX_CUDA=on pip install -e .` builds them" in line
    assert ("there is no nvcc; install a CUDA toolkit 12 or 13" in line) == (nvcc is None)
    assert "not built" in refuses(capsys, "train", "--device", "cuda:0", "--output-dir", tmp_path / "run")


def test_this_machine(capsys):
    """Whatever it has, doctor and --device agree."""
    line, reason = doctor_on_cuda(capsys), backends.available()["cuda"]
    assert line.split(maxsplit=1)[1] == ("ready" if reason is None else f"no: {reason}")
    if reason:
        assert refuses(capsys, "check-grads", "--device", "cuda:0") == f"minialex: cuda: {reason}\n"


def test_devices_beyond_the_last(capsys):
    load_or_skip("emulated")
    assert "there is no device 9: this backend has" in refuses(capsys, "train", "--device", "emulated:9")


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_precisions_that_the_cpu_has_not(capsys, tmp_path, precision):
    err = refuses(capsys, "train", "--device", "cpu", "--precision", precision, "--output-dir", tmp_path / "run")
    assert precision in err and "float32" in err and not (tmp_path / "run").exists()


def test_the_package_without_any_extension(tmp_path):
    """What a machine without a compiler has: everything but the two compiled backends."""
    program = ("import sys; sys.modules['minialex._emulated'] = sys.modules['minialex._cuda'] = None\n"
               "import minialex\nfrom minialex import backends, cli\n"
               "print([name for name, reason in backends.available().items() if reason is None], backends.best())\n"
               "sys.exit(cli.main(sys.argv[1:]))")
    words = ("train", "--epochs", "1", "--limit-batches", "1", "-b", "8", "-q", "--output-dir", str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("['reference', 'cpu'] cpu\n"), done.stderr
