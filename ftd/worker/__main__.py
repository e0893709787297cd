"""``python -P -m ftd.worker DIRECTORY``: execute the attempt ordered there.

``python -P -m ftd.worker --describe``: say what a job makes of parameters (see the module).
"""

import sys
from pathlib import Path

from ftd.worker import describe
from ftd.worker.main import main

if __name__ == "__main__":
    sys.exit(describe.main() if sys.argv[1:] == ["--describe"] else main(Path(sys.argv[1])))
