"""What features can be extracted with: something frozen that says vectors about images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs.data.keyed import Indices
from jobs.features.views import View

if TYPE_CHECKING:
    from jobs.data.images import Images
    from jobs.features.shards import Bundle, Spool


class Pass(Protocol):
    """A network, or its beginning, ready to look at images."""

    def __call__(
        self,
        indices: Indices,
        view: View,
        bundles: Sequence[Bundle],
        folder: Path,
        pause: Callable[[int], None],
    ) -> Mapping[Bundle, Spool]:
        """The vectors of the samples `indices` for each of `bundles`, spooled below `folder`.

        `pause(n)` is called when n images are through, and may raise to leave.
        """


class Seeing(Protocol):
    """Something frozen that images are looked at with."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that determine what it says about given pixels."""

    def forward(self, images: Images, crop_size: int, batch_size: int, device: str) -> Pass:
        """It, ready to look at `images` of `crop_size` pixels, so many at once."""
