"""From a network's tensors to its numbered layers: by a family's rule, or by groups of names.

A rule is a sequence of (pattern, name).  A tensor belongs to the first pattern that its dotted name
begins with, up to a dot.  What the pattern matched is the layer's module; a name that ends in ``#``
makes a layer of each module, numbered from 1; the name ``=`` makes a layer of each module, called
like it; any other name gathers all its modules in one layer.  Layers come in the order of
their first tensors, which in the families ruled so is the order of computation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from ftd.errors import UnknownName
from jobs.models.network import Layer

Rule = Sequence[tuple[str, str]]
CLASSIFIER = "classifier"


def ruled(module: nn.Module, rule: Rule) -> tuple[Layer, ...]:
    """The layers of `module` by a rule; LookupError for a tensor that no pattern covers."""
    patterns = [(re.compile(rf"(?:{pattern})(?=\.|$)"), name) for pattern, name in rule]
    members: dict[tuple[str, str], dict[str, None]] = {}  # (name, module if one each) -> modules
    for tensor in module.state_dict():
        path, name = _matching(tensor, patterns)
        key = (name, path if name == "=" or name.endswith("#") else "")
        members.setdefault(key, {})[path] = None
    counts: Counter[str] = Counter()
    layers = []
    for (name, path), paths in members.items():
        counts[name] += 1
        numbered = f"{name[:-1]}{counts[name]}" if name.endswith("#") else name
        layers.append(Layer(path if name == "=" else numbered, tuple(paths)))
    return complete(module, layers)


def _matching(tensor: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> tuple[str, str]:
    for pattern, name in patterns:
        match = pattern.match(tensor)
        if match:
            return match[0], name
    raise LookupError(f"no pattern covers {tensor}")


def grouped(module: nn.Module, groups: Mapping[str, int], classifier: str) -> tuple[Layer, ...]:
    """The layers of `module` whose tensors are grouped by ordinals: stem, blocks, head, classifier.

    `groups` has the ordinal of every tensor in the state; a tensor of the module `classifier` is in
    the last layer, whatever its ordinal.  The head is what shares the classifier's ordinal or comes
    behind it, if anything does.
    """
    state = module.state_dict()
    head = min(ordinal for name, ordinal in groups.items() if _inside(name, classifier))
    body: dict[int, list[str]] = {}
    for name in state:
        if not _inside(name, classifier):
            body.setdefault(min(groups[name], head), []).append(name)
    layers = []
    for number, ordinal in enumerate(sorted(body)):
        label = "head" if ordinal == head else f"block{number}" if number else "stem"
        layers.append(Layer(label, _modules(body[ordinal], state)))
    return complete(module, [*layers, Layer(CLASSIFIER, (classifier,))])


def _modules(names: Sequence[str], state: Iterable[str]) -> tuple[str, ...]:
    """The fewest dotted paths that hold the tensors `names` and no others of the state."""
    others = set(state) - set(names)
    taken = {name.rsplit(".", depth)[0] for name in others for depth in range(name.count(".") + 1)}
    chosen: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        paths = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        chosen[next(path for path in paths if path not in taken)] = None
    return tuple(chosen)


def _inside(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def complete(module: nn.Module, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """`layers` with every module that has no tensors in the layer it feeds: the next one's.

    A dropout thus belongs to the layer that consumes it; behind the last tensor, to the last layer.
    """
    homeless: list[str] = []
    gained: dict[int, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        index = next((i for i, layer in enumerate(layers) if layer.holds(path)), None)
        if index is not None:
            gained.setdefault(index, []).extend(homeless)
            homeless.clear()
        elif next(part.children(), None) is None:
            homeless.append(path)
    gained.setdefault(len(layers) - 1, []).extend(homeless)
    return tuple(
        Layer(layer.name, (*layer.modules, *gained.get(index, ())))
        for index, layer in enumerate(layers)
    )


def classifier_of(module: nn.Module, layers: Sequence[Layer], model: str) -> str:
    """The name of the one linear module, or convolution, in the last layer.

    Raises UnknownName when it holds none or several: such a network cannot be numbered.
    """
    found = [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and layers[-1].holds(path)
    ]
    if len(found) != 1:
        raise UnknownName(
            f"{model} has {len(found)} classifiers, must be one",
            fix="Choose another network; `ftd layers --list` shows those that can be used",
        )
    return found[0]
