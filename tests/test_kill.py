"""Killed anywhere, a resumed run ends in the same bits as one that was left alone."""

import json
import random
import signal

import pytest
from runs import assert_same_run, small_store, train_in_child

FLAGS = ("--recipe", "tiny", "-b", "24", "--epochs", "3", "--seed", "5", "-q")
STEPS = 3 * 4                                      # 96 pictures in batches of 24, three epochs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def untouched(store, tmp_path_factory):
    """The run nobody disturbs."""
    run = tmp_path_factory.mktemp("untouched") / "run"
    done = train_in_child(store, *FLAGS, "--output-dir", run, "-j", "2")
    assert done.returncode == 0, done.stderr
    return run


def finish(store, run, *more):
    done = train_in_child(store, *FLAGS, "--output-dir", run, "--resume", "auto", *more)
    assert done.returncode == 0, done.stderr


def test_the_run_is_repeatable_and_workers_change_no_bit(store, untouched, tmp_path):
    done = train_in_child(store, *FLAGS, "--output-dir", tmp_path / "run", "-j", "3", "--no-fuse")
    assert done.returncode == 0, done.stderr
    assert_same_run(untouched, tmp_path / "run")


def test_another_seed_is_another_run(store, untouched, tmp_path):
    train_in_child(store, *FLAGS, "--seed", "6", "--output-dir", tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same_run(untouched, tmp_path / "run")


@pytest.mark.parametrize("chain", [0, 1, *(pytest.param(chain, marks=pytest.mark.long) for chain in range(2, 16))])
def test_random_kills(store, untouched, tmp_path, chain):
    """Thirteen kills in a chain, two chains (sixteen with --long, 208 kills): after a step, and before an fsync or a rename in the
    middle of a save.  A checkpoint after every step (0 minutes) makes each link of the chain go on from somewhere else."""
    rng, run, killed, spent = random.Random(chain), tmp_path / "run", 0, []
    while killed < 13:
        event = rng.choice(("learn", "os.replace", "os.fsync"))
        kill = f"{event} {rng.randint(1, 3) if event == 'learn' else rng.randint(1, 8)}"
        resume = ("--resume", "auto") if any(run.glob("checkpoint-*")) else ()
        often = ("-j", str(rng.randint(1, 3)), "--checkpoint-minutes", rng.choice(("0", "10")))
        done = train_in_child(store, *FLAGS, "--output-dir", run, *resume, *often, kill=kill)
        spent.append(kill)
        if done.returncode == 0:                    # it got to the end before the kill: begin another run
            assert_same_run(untouched, run)
            for path in run.iterdir():
                path.unlink()
            continue
        assert done.returncode == -signal.SIGKILL, (kill, done.stderr)
        killed += 1
    finish(store, run)
    assert_same_run(untouched, run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    want = [json.loads(line) for line in (untouched / "metrics.jsonl").read_text().splitlines()]
    for row in (*rows, *want):
        del row["seconds"], row["time"]
    assert rows == want, spent
    assert not list(run.glob(".*.partial")), "temporary files of a killed save must go at the next start"


def test_sigterm_finishes_the_step_and_saves(store, untouched, tmp_path):
    """Exit status 143; the checkpoint stands at the step that was under way."""
    run = tmp_path / "run"
    done = train_in_child(store, *FLAGS, "--output-dir", run, kill="learn 6", politely=True)
    assert done.returncode == 143, done.stderr
    assert "SIGTERM: stopped after step 6; go on with --resume" in done.stderr
    assert (run / "checkpoint-6.safetensors").exists()
    finish(store, run, "-j", "1")
    assert_same_run(untouched, run)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(store, untouched, tmp_path):
    run = tmp_path / "run"
    train_in_child(store, *FLAGS, "--output-dir", run, "--checkpoint-minutes", "0", kill="learn 7")
    newest = run / (run / "last").read_text().strip()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = train_in_child(store, *(flag for flag in FLAGS if flag != "-q"), "--output-dir", run, "--resume", "auto")
    assert done.returncode == 0 and "trying the one before" in done.stdout, done.stdout + done.stderr
    assert_same_run(untouched, run)


def test_a_damaged_checkpoint_named_outright_is_refused(store, untouched, tmp_path):
    broken = tmp_path / "checkpoint-12.safetensors"
    broken.write_bytes(next(iter(sorted(untouched.glob("checkpoint-*.safetensors")))).read_bytes()[:-100])
    done = train_in_child(store, *FLAGS, "--resume", broken, "--output-dir", tmp_path / "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and str(broken) in done.stderr
