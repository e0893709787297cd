"""Parameters of joint training: which images of the source are borrowed, and for whom."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ftd.errors import InputError
from ftd.job import Params
from jobs.params import descriptors
from jobs.params.descriptors import DescriptorParams

RANDOM = ("random", "balanced_random")


class SelectionParams(Params):
    """Which images of the pool are trained on, and which of them go with a target image."""

    by: Literal["none", "all", "random", "balanced_random", "descriptors"] = Field(
        description="none: plain fine-tuning. all: any image of the pool goes with any of the "
        "target's. random: any of so many of them; balanced_random: likewise, of each class "
        "equally many as far as there are. descriptors: with each target image one of its own "
        "nearest neighbours.",
    )
    neighbours: int = Field(
        default=300,
        ge=1,
        description="For descriptors: how many neighbours each target image has (K0).",
    )
    descriptors: DescriptorParams = DescriptorParams()
    num_images: int | None = Field(
        default=None,
        ge=1,
        description="For random and balanced_random: how many images; default: as many different "
        "ones as `neighbours` and `descriptors` would select.",
    )
    least_per_class: int = Field(
        default=0,
        ge=0,
        description="Classes of which fewer images are selected are left out, of what is borrowed "
        "and of what the source's head tells apart; 0: none, and it tells all of the pool apart.",
    )
    held_out: Literal["drop", "report"] = Field(
        default="drop",
        description="Images of the pool that show, exactly or nearly, what the target is validated "
        "or tested on: left out, or only counted; a run that they are lent to is flagged.",
    )

    @property
    def looks_for_neighbours(self) -> bool:
        """Whether neighbours are needed, if only to know how many there are."""
        return self.by == "descriptors" or (self.by in RANDOM and self.num_images is None)

    def identity(self) -> dict[str, Any]:
        """What of it determines a run, as JSON values: what this kind does not use is left out."""
        found: dict[str, Any] = {"by": self.by}
        if self.by == "none":
            return found
        if self.looks_for_neighbours:
            found["neighbours"] = self.neighbours
            found["descriptors"] = descriptors.identity(self.descriptors)
        elif self.by in RANDOM:
            found["num_images"] = self.num_images
        if self.least_per_class > 1:
            found["least_per_class"] = self.least_per_class
        if self.held_out != "drop":
            found["held_out"] = self.held_out
        return found


class HardParams(Params):
    """Target images that are hard to tell get more neighbours, round after round (Ge, Yu 2017).

    An image at level n has n times the neighbours; all begin at level 1.  The paper adds 4 K0
    neighbours for a wrong prediction, 2 K0 for an uncertain one, and leaves rounds and delta open.
    """

    every_steps: int = Field(
        ge=1, description="Steps between two rounds, rounded up to whole epochs."
    )
    rounds: int = Field(default=2, ge=1, le=1000, description="How many rounds.")
    wrong: int = Field(default=4, ge=0, le=1000, description="Levels up for a wrong prediction.")
    uncertain: int = Field(
        default=2, ge=0, le=1000, description="Levels up for a right one of high entropy."
    )
    delta: float | Literal["median"] = Field(
        default=0.1,
        description="Entropy (nats) from which on a prediction is uncertain; median: that of all "
        "predictions of the round.",
    )
    cap: int = Field(default=10, ge=1, le=1000, description="The highest level.")
    predictions: Literal["training", "cross_fitted"] = Field(
        default="training",
        description="Of the target's training images: training: the network's own, which has "
        "learned them; cross_fitted: those of classifiers fitted anew, on what the head reads, to "
        "the other folds (logistic regressions; this project's way).",
    )
    folds: int = Field(default=5, ge=2, description="For cross_fitted: how many folds.")
    neighbours: Literal["on", "off"] = Field(
        default="on", description="on: an image at level n has n times the neighbours."
    )
    oversample: Literal["off", "on"] = Field(
        default="off",
        description="on: an image at level n is drawn n times as often as one at level 1. The "
        "paper's code does that, its text does not say so.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> HardParams:
        if self.neighbours == self.oversample == "off":
            raise ValueError("neighbours: off and oversample: off leave nothing to do")
        if self.delta != "median" and self.delta < 0:
            raise ValueError("delta is an entropy: 0 or more")
        return self

    @property
    def most_neighbours(self) -> int:
        """The largest number of neighbours, as a multiple of K0."""
        step = max(self.wrong, self.uncertain)
        return min(self.cap, 1 + self.rounds * step) if self.neighbours == "on" else 1

    def ends(self, steps_per_epoch: int, num_steps: int) -> tuple[int, ...]:
        """The numbers of steps behind which the rounds come: at ends of epochs, and not at the very
        end.  Raises InputError when there would be none.
        """
        length = -(-self.every_steps // steps_per_epoch) * steps_per_epoch
        found = tuple(range(length, num_steps, length))[: self.rounds]
        if not found:
            raise InputError(
                f"the first round is to come after step {length}, and training has {num_steps}",
                where="hard.every_steps",
                fix="Ask for rounds earlier, train longer, or leave hard out",
            )
        return found

    def identity(self) -> dict[str, Any]:
        """What of it determines a run, as JSON values."""
        unused = set() if self.predictions == "cross_fitted" else {"folds"}
        return self.model_dump(mode="json", exclude=unused)
