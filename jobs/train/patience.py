"""Early stopping: training ends when validation no longer improves."""

from __future__ import annotations

from dataclasses import dataclass

from ftd.metric_names import goodness
from jobs.params.regularisation import EarlyStopParams


@dataclass
class Patience:
    """The last improvement: its step (0: none yet) and its value.

    A value counts as improved when it is better than that one by more than ``min_delta``.
    """

    wanted: EarlyStopParams
    metric: str
    step: int = 0
    value: float = 0.0

    def look(self, step: int, value: float) -> None:
        """Take note of `value`, validated at `step`; repeating the latest changes nothing."""
        gain = goodness(value, self.metric) - goodness(self.value, self.metric)
        if self.step == 0 or gain > self.wanted.min_delta:
            self.step, self.value = step, value

    def forget(self) -> None:
        """As if nothing had been validated yet."""
        self.step, self.value = 0, 0.0

    def is_over(self, step: int) -> bool:
        """Whether training ends after the validation at `step`."""
        return self.step > 0 and step - self.step >= self.wanted.patience_steps
