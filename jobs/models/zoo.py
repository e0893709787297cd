"""The families of torchvision's classification networks, each numbered by one rule.

The smallest layer is a block: the smallest part that can be frozen alone without cutting through
its shortcut (He et al. 2015) or its concatenation.  What halves the picture between two stages is a
layer of its own where it is a module of its own, a normalisation before the classifier likewise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from jobs.models.network import Layer
from jobs.models.numbering import CLASSIFIER, Rule, ruled


@dataclass(frozen=True)
class Family:
    """Networks of one structure; see :mod:`jobs.models.numbering` for the rule."""

    models: tuple[str, ...]
    rule: Rule
    options: Mapping[str, Any] = field(default_factory=dict)  # of torchvision's constructor
    unused: tuple[str, ...] = ()  # parts of the published weights that are left out
    renames: tuple[tuple[str, str], ...] = ()  # (pattern, replacement): names of old files
    sizes: str = "least"  # least: no smaller than recorded; only: the published one; any


_NO_AUXILIARY = {"aux_logits": False, "init_weights": False, "transform_input": True}

FAMILIES = (
    Family(
        (
            "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2",
            "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
        ),
        (("conv1|bn1", "stem"), (r"layer\d\.\d+", "block#"), ("fc", CLASSIFIER)),
    ),
    Family(
        ("densenet121", "densenet161", "densenet169", "densenet201"),
        (
            (r"features\.(?:conv0|norm0)", "stem"),
            (r"features\.denseblock\d\.denselayer\d+", "block#"),
            (r"features\.transition\d", "transition#"),
            (r"features\.norm5", "norm"),
            ("classifier", CLASSIFIER),
        ),
        renames=((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),),
    ),
    Family(
        ("squeezenet1_0", "squeezenet1_1"),
        ((r"features\.0", "stem"), (r"features\.\d+", "fire#"), (r"classifier\.1", CLASSIFIER)),
    ),
    Family(
        ("googlenet",),
        ((r"conv\d|inception\d\w", "="), ("fc", CLASSIFIER)),
        _NO_AUXILIARY,
        unused=("aux1.", "aux2."),
    ),
    Family(
        ("inception_v3",),
        ((r"Conv2d_\w+|Mixed_\w+", "="), ("fc", CLASSIFIER)),
        _NO_AUXILIARY,
        unused=("AuxLogits.",),
    ),
    Family(
        ("mobilenet_v2",),
        (
            (r"features\.0", "stem"),
            (r"features\.\d+(?=\.conv\.)", "block#"),
            (r"features\.18", "conv_head"),
            (r"classifier\.1", CLASSIFIER),
        ),
    ),
    Family(
        ("mobilenet_v3_small", "mobilenet_v3_large"),
        (
            (r"features\.0", "stem"),
            (r"features\.\d+(?=\.block\.)", "block#"),
            (r"features\.\d+", "conv_head"),
            (r"classifier\.0", "fc_head"),
            (r"classifier\.3", CLASSIFIER),
        ),
    ),
    Family(
        tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
        (
            ("conv1", "stem"),
            (r"stage\d\.\d+", "block#"),
            ("conv5", "conv_head"),
            ("fc", CLASSIFIER),
        ),
    ),
    Family(
        (
            *(f"efficientnet_b{scale}" for scale in range(8)),
            *(f"efficientnet_v2_{size}" for size in "sml"),
        ),
        (
            (r"features\.0", "stem"),
            (r"features\.\d+\.\d+(?=\.block\.)", "block#"),
            (r"features\.\d+", "conv_head"),
            (r"classifier\.1", CLASSIFIER),
        ),
    ),
    Family(
        (
            *(
                f"regnet_{kind}_{size}"
                for kind in "xy"
                for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
            ),
            "regnet_y_128gf",
        ),
        (("stem", "stem"), (r"trunk_output\.\w+\.[\w-]+", "block#"), ("fc", CLASSIFIER)),
    ),
    Family(
        tuple(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
        (
            (r"layers\.[01]", "stem"),
            (r"layers\.[3467]", "sepconv"),
            (r"layers\.\d+(?=\.\d+\.)\.\d+", "block#"),
            (r"layers\.\d+", "conv_head"),
            (r"classifier\.1", CLASSIFIER),
        ),
    ),
    Family(
        tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
        (
            (r"features\.0", "stem"),
            (r"features\.[1357]\.\d+", "block#"),
            (r"features\.[246]", "downsample#"),
            (r"classifier\.0", "norm"),
            (r"classifier\.2", CLASSIFIER),
        ),
    ),
    Family(
        ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
        (
            (r"class_token|conv_proj|encoder\.pos_embedding", "stem"),
            (r"encoder\.layers\.\w+", "block#"),
            (r"encoder\.ln", "norm"),
            (r"heads\.head", CLASSIFIER),
        ),
        renames=((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),
        sizes="only",
    ),
    Family(
        tuple(f"swin_{version}{size}" for version in ("", "v2_") for size in "tsb"),
        (
            (r"features\.0", "stem"),
            (r"features\.[1357]\.\d+", "block#"),
            (r"features\.[246]", "merge#"),
            ("norm", "norm"),
            ("head", CLASSIFIER),
        ),
        sizes="any",  # windows are padded
    ),
    Family(
        ("maxvit_t",),
        (
            ("stem", "stem"),
            (r"blocks\.\d\.layers\.\d+", "block#"),
            (r"classifier\.[23]", "fc_head"),
            (r"classifier\.5", CLASSIFIER),
        ),
        sizes="only",
    ),
)  # fmt: skip

_BY_MODEL = {model: family for family in FAMILIES for model in family.models}
MODELS = tuple(_BY_MODEL)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torchvision puts there."""
    from torchvision import models  # torchvision takes seconds to import

    family = _BY_MODEL[model]
    module = models.get_model(model, weights=None, num_classes=num_classes, **family.options)
    return module, ruled(module, family.rule)


def family_of(model: str) -> Family | None:
    """The family of a network of torchvision's that is numbered here."""
    return _BY_MODEL.get(model)


def own_name(model: str, published: str) -> str | None:
    """The network's name of a tensor in the published file; None for one it does not use."""
    family = _BY_MODEL.get(model)
    if family is None:
        return published
    if published.startswith(family.unused):
        return None
    for pattern, replacement in family.renames:
        published = re.sub(pattern, replacement, published)
    return published
