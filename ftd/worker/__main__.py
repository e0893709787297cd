"""``python -P -m ftd.worker DIRECTORY``: execute the attempt ordered there.

A number before it is the descriptor of a socket over which the daemon names others after that one.
``--describe``: say what a job makes of parameters; ``--fork-server JOB``: start workers of a job as
the daemon asks; ``--trial END DIRECTORY``: execute an attempt that ends early (see the modules).
"""

import socket
import sys
from pathlib import Path

from ftd.worker import describe, fork_server, trial
from ftd.worker.main import main


def _main(arguments: list[str]) -> int:
    match arguments:
        case ["--describe"]:
            return describe.main()
        case ["--fork-server", job]:
            forked = fork_server.serve(socket.socket(fileno=0), job)
            return 0 if forked is None else main(forked.directory, channel=forked.channel)
        case ["--trial", end, directory]:
            return trial.main(end, Path(directory))
        case [directory]:
            return main(Path(directory))
        case [channel, directory]:
            return main(Path(directory), channel=socket.socket(fileno=int(channel)))
    return 2


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
