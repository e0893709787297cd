"""Describes a network in a process of its own, for planners that have no torch.

``python -P -m jobs.models.describe timm/NAME`` prints one line of JSON: ``layers`` and ``record``,
or why the network is ``refused``; with ``--list`` the ``names`` of all there are.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from ftd.errors import UnknownName
from jobs.layers import packed
from jobs.models.build import skeleton
from jobs.models.dropout import DropoutKeys
from jobs.models.exact import check_exact, make_exact
from jobs.models.timm_zoo import names, record

_NUM_CLASSES = 13


def describe(model: str) -> dict[str, Any]:
    """The facts about ``timm/NAME``, as JSON values."""
    try:
        module, layers = skeleton(model, _NUM_CLASSES)
        facts = record(module)
        make_exact(module, layers, DropoutKeys(0))
        check_exact(model, module, _NUM_CLASSES, facts["crop"])
    except UnknownName as error:
        return {"refused": error.what, "fix": error.fix}
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return {"refused": f"{model} cannot be numbered ({reason})", "fix": ""}
    return {"layers": packed([layer.name for layer in layers]), "record": facts}


def main() -> None:
    """Answer for the network named on the command line, or list all names."""
    torch.set_num_threads(1)
    asked = sys.argv[1]
    print(json.dumps({"names": names()} if asked == "--list" else describe(asked)))


if __name__ == "__main__":
    main()
