"""Parameters of growth: which new parts a network gets, how large, how they start and learn."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ftd.errors import InputError
from ftd.job import Params
from jobs.params.target import TargetParams

GrowthType = Literal[
    "none", "da", "wa", "dwa", "wwa", "scale_only", "bottleneck", "zero_outgoing", "gradmax",
    "net2wider", "net2deeper", "lora",
]  # fmt: skip

WITHOUT_UNITS = frozenset({"none", "scale_only", "net2deeper"})
JOINED = frozenset({"da", "wa", "dwa", "wwa", "scale_only", "bottleneck"})  # may be scaled
COPYING = frozenset({"wa", "dwa", "wwa"})
BESIDE = frozenset(  # new units beside old ones
    {"wa", "dwa", "wwa", "bottleneck", "zero_outgoing", "gradmax", "net2wider"}
)
# A typing error must not take the whole machine's memory.
MOST_UNITS = 1 << 16
MOST_WEIGHTS = 1 << 28  # between new units, a gigabyte
NEW_TOP = frozenset({"da", "dwa"})  # the classifier reads other units than before


class GrowthParams(Params):
    """How the network grows.  Wang, Ramanan, Hebert: Growing a Brain, CVPR 2017.

    fc7 stands for the last layer before the classifier, fc6 for the one before; h6 and h7 are what
    they give.  Where they are no fully-connected layers see :mod:`jobs.growth.place`.
    """

    type: GrowthType = Field(
        description="none; the paper's da (a layer fc_a on fc7), wa (units beside fc7), dwa "
        "(both), wwa (units beside fc6 and fc7); controls: scale_only (normalised and scaled, no "
        "units), "
        "bottleneck (a hidden layer on fc7 beside the classifier's direct view of it), "
        "zero_outgoing, gradmax, net2wider (wa that changes nothing at first), net2deeper (fc_a "
        "that changes nothing at first), lora (a low-rank branch beside fc7).",
    )
    units: int | None = Field(
        default=None,
        ge=1,
        le=MOST_UNITS,
        description="New units: of fc_a (da), beside fc7 (wa and its kin, dwa, wwa), hidden "
        "(bottleneck); the rank (lora).",
    )
    units_below: int | None = Field(
        default=None,
        ge=1,
        le=MOST_UNITS,
        description="For wwa: units beside fc6. Default: half of units.",
    )
    units_on_top: int | None = Field(
        default=None, ge=1, le=MOST_UNITS, description="For dwa: units of fc_a. Default: as units."
    )
    parameters: int | None = Field(
        default=None,
        ge=1,
        le=MOST_WEIGHTS,
        description="Instead of units: as many as bring the network nearest to so many parameters "
        "more than it has without growth.",
    )
    init: Literal["rand", "copy_rand"] = Field(
        default="rand",
        description="What new units beside old ones start from. rand: random weights; copy_rand: "
        "the incoming weights of old units, plus noise.",
    )
    noise: float = Field(
        default=0.1,
        ge=0,
        description="For copy_rand and net2wider: standard deviation of the noise, as a share of "
        "that of the copied layer's weights.",
    )
    scale: Literal["on", "off"] | None = Field(
        default=None,
        description="on: h7 and the new units' outputs are each divided by their L2 norm, image by "
        "image, and multiplied with a learned factor per unit. Default: on, but off for what "
        "changes nothing at first.",
    )
    gamma: float = Field(default=10.0, gt=0, le=1e6, description="What those factors start from.")
    lr_factor: float = Field(
        default=10.0, gt=0, description="Learning rate of new parts, as a multiple of train.lr."
    )
    at_step: int | None = Field(
        default=None,
        ge=1,
        description="Grow after so many steps of training; default: before the first.",
    )

    blocks: Literal["off", "on"] = Field(
        default="off",
        description="on: what is tested too are linear classifiers on the old block alone, the new "
        "units alone and both, fitted to training images: test_old/top1, test_new/top1, "
        "test_both/top1 and the like.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> GrowthParams:
        sizes = [self.units is not None, self.parameters is not None]
        if self.type in WITHOUT_UNITS and any(sizes):
            raise ValueError(f"type {self.type} has no units to count: leave units out")
        if self.type not in WITHOUT_UNITS and sum(sizes) != 1:
            raise ValueError(f"type {self.type} needs either units or parameters")
        for name, wanted in (("units_below", "wwa"), ("units_on_top", "dwa")):
            if getattr(self, name) is not None and self.type != wanted:
                raise ValueError(f"{name} goes with type: {wanted}")
        units = self.units or 0
        if units * max(self.num_below(units), self.num_on_top(units)) > MOST_WEIGHTS:
            raise ValueError(f"new units have more than {MOST_WEIGHTS} weights between them")
        if self.parameters is not None and (self.units_below or self.units_on_top):
            raise ValueError("parameters sizes all new parts: leave units_below, units_on_top out")
        if self.init == "copy_rand" and self.type not in COPYING:
            raise ValueError(f"init: copy_rand goes with {', '.join(sorted(COPYING))}")
        if self.scale == "on" and self.type not in JOINED:
            raise ValueError(f"scale: on goes with {', '.join(sorted(JOINED))}")
        if self.scale == "off" and self.type == "scale_only":
            raise ValueError("scale_only without scale is none")
        if self.blocks == "on" and self.type not in BESIDE:
            raise ValueError(f"blocks: on goes with {', '.join(sorted(BESIDE))}")
        if self.at_step is not None and self.type in NEW_TOP:
            raise ValueError(
                f"type {self.type} needs a new classifier, so it cannot come in the middle of "
                "training: leave at_step out"
            )
        return self

    @property
    def scaled(self) -> bool:
        """Whether blocks are normalised and scaled."""
        return self.type in JOINED and self.scale != "off"

    @property
    def noisy(self) -> bool:
        """Whether weights are copied, with noise."""
        return self.type == "net2wider" or self.init == "copy_rand"

    def check_top(self, model: str, num_fully_connected: int) -> None:
        """Raise InputError where this growth needs more fully-connected layers before the
        classifier than the `num_fully_connected` that `model` has."""
        if self.type == "wwa":
            needed, what = 2, "type: wwa needs two fully-connected layers"
        elif self.noisy or self.type in ("net2deeper", "lora"):
            named = f"init: {self.init}" if self.init == "copy_rand" else f"type: {self.type}"
            needed, what = 1, f"{named} needs a fully-connected layer"
        else:
            return
        if num_fully_connected < needed:
            raise InputError(
                f"{what} before the classifier, which {model} does not have",
                where="growth.type",
                fix="Use alexnet, a vgg or mini8, or another growth.type",
            )

    def num_below(self, units: int) -> int:
        """How many units stand beside fc6, with `units` beside fc7."""
        return (self.units_below or max(units // 2, 1)) if self.type == "wwa" else 0

    def num_on_top(self, units: int) -> int:
        """How many units fc_a has above widened layers, with `units` beside fc7."""
        return (self.units_on_top or units) if self.type == "dwa" else 0

    def identity(self) -> dict[str, Any]:
        """What of it determines a run, as JSON values: what this type does not use is left out."""
        if self.type == "none":
            return {"type": "none"}
        kept = {"type", "units", "parameters", "lr_factor", "at_step"}
        found = self.model_dump(mode="json", include=kept)
        if self.units is not None:
            sizes = self.num_below(self.units), self.num_on_top(self.units)
            found["units_below"], found["units_on_top"] = (size or None for size in sizes)
        found = {name: value for name, value in found.items() if value is not None}
        if self.init != "rand":
            found["init"] = self.init
        if self.noisy:
            found["noise"] = self.noise
        if self.scaled:
            found["gamma"] = self.gamma
        if self.blocks == "on":
            found["blocks"] = self.blocks
        return found


class LwfParams(Params):
    """Learning without forgetting (Li, Hoiem 2016), with the source's classifier as it was."""

    weight: float = Field(default=1.0, gt=0, description="What it counts beside the target's loss.")
    temperature: float = Field(
        default=2.0,
        gt=0,
        le=1e6,
        description="Logits are divided by it: more counts what is less likely.",
    )


class RehearseParams(Params):
    """Joint training against forgetting, on images of the source, with its classifier as it was."""

    weight: float = Field(
        default=1.0, gt=0, description="What one of them counts beside one of the target's images."
    )


class ForgettingParams(Params):
    """What is measured of the source after the network has adapted."""

    source: TargetParams = Field(
        description="The images that the run in model.weights was trained for: the same keys as "
        "`target`. Those that it was tested on, less those that the target's training shows, are "
        "given to its old classifier, on the old layers as they were and as they are: "
        "source_before/top1, source_after/top1 and the like.",
    )
    lwf: LwfParams | None = Field(
        default=None,
        description="{weight, temperature}: on the target's images, what the old classifier says "
        "is pulled to what it said before; {} for the usual ones.",
    )
    rehearse: RehearseParams | None = Field(
        default=None,
        description="{weight}: each step also takes as many of the source's training images (all "
        "that `source` asks for, less those that either run is tested on), for the old classifier "
        "to tell apart; {} for the usual weight. `train.batch_size` counts the target's alone.",
    )
