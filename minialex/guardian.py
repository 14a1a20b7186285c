"""The guardian of one rank: a small process beside it that says on its behalf which rank died.

The rank itself cannot: a launcher such as mpiexec kills the other ranks within a millisecond of the first death, and a rank that
survives hangs inside a sum that never comes.  Guardians live in sessions of their own and talk to rank 0's, the hub, which finds out
who was first.  Started by distributed.py as a script; its standard input comes from the rank:

    hub ADDRESS PORT        where the hub listens (the hub itself prints its port)
    say TEXT                what to add to the line
    bye                     the rank is about to end as it should
    failed                  it raised, and ends all by itself in a moment: say so before

End of input without bye is the rank's death.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time

PATIENCE = 0.2          # seconds the hub waits for reports of earlier deaths: the launcher kills the others at once
GRACE = 1.0             # seconds left to the launcher, which ends the others with a better status


class Guardian:
    """`token` keeps strangers from the hub's port; `rank_process` is ended when another rank has died."""

    def __init__(self, rank: int, size: int, token: str, rank_process: int):
        self.rank, self.token, self.rank_process = rank, token, rank_process
        self.text, self.well = "", False
        self.out: set[int] = set(range(size))                   # ranks that have not said bye; the hub's business
        self.deaths: list[tuple[float, int]] = []               # (when, rank) reported to the hub
        self.ranks: dict[socket.socket, int | None] = {}        # the hub's callers; the others' only entry is the hub
        self.pending: dict[int, bytes] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ)

    def listen(self, address: str) -> int:
        listener = socket.create_server((address, 0))
        self.selector.register(listener, selectors.EVENT_READ, data="listener")
        return listener.getsockname()[1]

    def _add(self, connection: socket.socket, rank: int | None) -> None:
        self.ranks[connection] = rank
        self.selector.register(connection, selectors.EVENT_READ, data="peer")

    def run(self) -> None:
        """Until all has ended, well or not."""
        while self.out and not (self.well and self.rank):
            if self.deaths and time.time() > self.deaths[0][0] + PATIENCE:
                self._verdict(min(self.deaths)[1])
            for key, _ in self.selector.select(PATIENCE if self.deaths else None):
                if key.data == "listener":
                    self._add(key.fileobj.accept()[0], None)
                    continue
                content = os.read(key.fd, 65536) if key.data is None else self._receive(key.fileobj)
                *lines, self.pending[key.fd] = (self.pending.get(key.fd, b"") + content).split(b"\n")
                for line in lines:
                    self._heard(key.fileobj, *line.decode(errors="replace").partition(" ")[::2])
                if not content:
                    self._ended(key.fileobj)

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        try:
            return connection.recv(65536)
        except OSError:
            return b""

    def _heard(self, source, word: str, rest: str) -> None:
        if word == "hub":
            address, port = rest.split()
            hub = socket.create_connection((address, int(port)), timeout=10)
            hub.sendall(f"hello {self.rank} {self.token}\n".encode())
            self._add(hub, 0)
        elif word == "say":
            self.text = rest
        elif word == "bye":
            self.well = self.well or source == 0
            self.out.discard(self.rank if source == 0 else self.ranks[source])
            if self.rank:
                self._tell("bye")
        elif word == "failed":
            self._own_death(0.0)
        elif word == "hello" and rest.partition(" ")[2] == self.token:
            self.ranks[source] = int(rest.partition(" ")[0])
        elif word == "ended" and self.ranks.get(source) is not None:
            rank, when = rest.split()
            if self.rank:
                self._verdict(int(rank))
            self.deaths.append((float(when), int(rank)))

    def _ended(self, source) -> None:
        """End of input: of this rank, of a peer's guardian, or of the hub."""
        self.selector.unregister(source)
        if source == 0:
            if not self.well:
                self._own_death(time.time())
        elif self.rank:                                         # the hub went without a word: its whole machine
            self._verdict(0)
        elif self.ranks[source] in self.out:
            self.deaths.append((time.time(), self.ranks[source]))

    def _own_death(self, when: float) -> None:
        if self.rank == 0:
            self.deaths.append((when, 0))
        elif not self._tell(f"ended {self.rank} {when}"):
            self._verdict(self.rank)

    def _tell(self, line: str) -> bool:
        """Sends a line to everybody this guardian knows."""
        told = False
        for connection in self.ranks:
            try:
                connection.sendall(f"{line}\n".encode())
                told = True
            except OSError:
                pass
        return told

    def _verdict(self, dead: int) -> None:
        if self.rank == 0:
            self._tell(f"ended {dead} 0")
        if dead != self.rank:
            os.write(2, f"minialex: rank {self.rank}: rank {dead} ended before its time, so all end{self.text}\n".encode())
            time.sleep(GRACE)
            if os.getppid() == self.rank_process:               # still its parent, so still that process
                os.kill(self.rank_process, signal.SIGKILL)
        os._exit(0)


def main() -> None:
    rank, size, token, rank_process, address = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guardian = Guardian(int(rank), int(size), token, int(rank_process))
    if rank == "0":
        print(guardian.listen(address), flush=True)
    sys.stdout.close()
    guardian.run()


if __name__ == "__main__":
    try:
        main()
    except OSError:
        sys.exit(1)                 # a guardian that cannot do its work must not disturb the rank's
