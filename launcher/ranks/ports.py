"""A TCP port for the ranks to meet at: ``python -m launcher.ranks.ports`` prints one that is free on this machine.

submitit derives the port from the job's number, which fails for good when that port is taken: two clusters may share a
network, and any program may hold it. The ports tried here lie below those that systems use for outgoing connections.
"""

from __future__ import annotations

import random
import socket

FIRST, LAST = 20000, 32000


def free_port() -> int:
    """A port that nobody listens on at this moment. Raises OSError when there is none."""
    for port in random.sample(range(FIRST, LAST), k=LAST - FIRST):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no TCP port from {FIRST} to {LAST} is free on {socket.gethostname()}")


if __name__ == "__main__":
    print(free_port())
