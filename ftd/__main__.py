"""``python -m ftd``: the command line."""

from ftd.cli.main import main

raise SystemExit(main())
