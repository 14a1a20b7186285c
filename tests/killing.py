"""Training runs that are forked from one warm process, and killed at a moment, at a byte of what they write, or at a call.

Started by `Nursery` as a script; a line of JSON on its standard input is a run, a line on its standard output what became of it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CALLS = ("fsync", "replace", "unlink")


class Nursery:
    """`asked`: the options of every run.  Each `run` is a process in a session of its own."""

    def __init__(self, **asked):
        root = Path(__file__).resolve().parents[1]
        environment = os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.asked = asked
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=environment)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def run(self, folder: Path, *, minutes: float = 0, event: str = "never", at: float = 0, number: int = signal.SIGKILL, **more) -> dict:
        """Goes on from what is in `folder`, or begins.  `number` is sent when `event` comes for the at-th time: "byte" of what is
        written to files, "call" of fsync, rename or removal, "step", "validation" batch; "time" is seconds.  Returns "status",
        "stderr", "seconds", "orphans" (processes that outlived it), "signalled" (steps done, and whether validating, when it heard a
        signal), "bytes", "calls" and "validations" (how many there were)."""
        resume = "auto" if any(Path(folder).glob("checkpoint-*.safetensors")) else None
        work = {"asked": self.asked | {"output_dir": str(folder)} | more, "resume": resume, "minutes": minutes,
                "event": event, "at": at, "number": int(number)}
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


# ------------------------------------------------------------------------------------------------------------------- in the warm process


def counted(work: dict, report: int) -> dict[str, int]:
    """Counts the events of this process and sends the signal at the chosen one."""
    import builtins

    from minialex import train
    seen = {"byte": 0, "call": 0, "step": 0, "validation": 0}
    event, at, number = work["event"], work["at"], work["number"]
    real_open = builtins.open

    class File(io.FileIO):
        def write(file, data):
            """One byte at a time, as far as anyone can tell who looks when it dies."""
            content = memoryview(data).cast("B")
            if event == "byte" and seen["byte"] < at <= seen["byte"] + len(content):
                io.FileIO.write(file, content[:int(at) - seen["byte"]])
                os.kill(os.getpid(), number)
            seen["byte"] += len(content)
            return io.FileIO.write(file, content)

    def opened(path, mode="r", *args, **more):
        return File(path, mode.replace("b", "")) if mode in ("wb", "ab") else real_open(path, mode, *args, **more)

    def noted(name, real, after=False):
        def call(*args, **more):
            result = real(*args, **more) if after else None
            seen[name] += 1
            if event == name and seen[name] == at:
                os.kill(os.getpid(), number)
            return result if after else real(*args, **more)
        return call

    heard, validate, evaluate = train.Trainer._on_signal, train.Trainer.validate, train.evaluate

    def on_signal(trainer, *args):
        os.write(report, json.dumps({"signalled": [trainer.step, bool(seen.get("validating"))]}).encode() + b"\n")
        heard(trainer, *args)

    def validating(trainer, epoch):
        seen["validating"] = 1
        result = validate(trainer, epoch)
        seen["validating"] = 0
        return result

    def evaluating(*args, progress, **more):
        return evaluate(*args, progress=noted("validation", progress), **more)

    builtins.open = opened
    train.evaluate = evaluating
    for name in CALLS:
        setattr(os, name, noted("call", getattr(os, name)))
    train.Trainer.learn = noted("step", train.Trainer.learn, after=True)
    train.Trainer._on_signal, train.Trainer.validate = on_signal, validating
    return seen


def child(work: dict, report: int, errors: int) -> None:
    from minialex import train
    from minialex.flags import guarded
    os.setsid()
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    seen = counted(work, report)

    def work_done():
        os.write(report, b"{}\n")                               # from here on a signal finds the program at work
        train.run(work["asked"], resume=work["resume"], quiet=True, checkpoint_minutes=work["minutes"], pictures=False)

    status = guarded(work_done)
    os.write(report, json.dumps({"bytes": seen["byte"], "calls": seen["call"], "validations": seen["validation"]}).encode() + b"\n")
    sys.exit(status)


def session(number: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == number and fields[0] != "Z":
            found.append(int(place.parent.name))
    return found


def tended(work: dict) -> dict:
    """Forks one run, and waits for its end."""
    import tempfile
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as errors:
        process = os.fork()
        if process == 0:
            os.close(ours)
            child(work, theirs, errors.fileno())
        os.close(theirs)
        with open(ours, "rb", buffering=0) as reports:
            lines, sent = reports.readline(), time.monotonic()
            if work["event"] == "time":
                time.sleep(work["at"])
                os.kill(process, work["number"])
                sent = time.monotonic()
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            seconds = time.monotonic() - sent
            lines += reports.read()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    result = {"status": status, "stderr": said, "seconds": seconds, "orphans": session(process)}
    for line in lines.splitlines():
        result |= json.loads(line)
    return result


def main() -> None:
    import matplotlib  # noqa: F401  what every run would import again

    from minialex import train  # noqa: F401
    from minialex.flags import guarded  # noqa: F401
    for line in sys.stdin:
        result = tended(json.loads(line))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
