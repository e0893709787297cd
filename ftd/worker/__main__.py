"""``python -P -m ftd.worker DIRECTORY``: execute the attempt ordered there."""

import sys
from pathlib import Path

from ftd.worker.main import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
