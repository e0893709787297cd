"""Everything a job author may import: Job, Params, Input, Context, Checkpoint, Completed.

A job is one kind of work.  It says which parameters it takes, which of them can influence its
result, what it reads from outside, and how to run.  Importing a job must not import torch: `run`
does that, so that planning thousands of runs stays light.

A job never saves, resumes or reports on its own: it calls the :class:`Context` it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ftd.errors import InputError
from ftd.outline import Label
from ftd.store import Store

Writer = Callable[[Path], None]


class Params(BaseModel):
    """Base of a job's parameters: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Budget(BaseModel):
    """How long every run of an experiment trains, in the unit in which the runs are to be equal."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    match: Literal["steps", "epochs", "target_images", "total_images"] = Field(
        description="What all runs have equally much of: optimizer steps, passes over their "
        "training images, images of the target seen, or images seen of source and target together."
    )
    value: int = Field(ge=1, description="How much of it.")


@dataclass(frozen=True)
class Input:
    """Something outside the spec that determines the result.

    ``where`` is an absolute path for a folder or file, a distribution name for a package, and for a
    run, whose kept files are read, what people call it: r12, or an experiment, one of whose cells
    the levels in ``cell`` (factor, level) pick.  ``file`` is what is read of a run, where it must
    be known beforehand that it is kept.
    """

    kind: Literal["folder", "file", "package", "run"]
    where: str
    cell: tuple[tuple[str, Label], ...] = ()
    file: str = ""

    @property
    def called(self) -> str:
        """The whole of it in a line; of a run, what :meth:`Context.kept` knows it by."""
        levels = " ".join(f"{factor}={level}" for factor, level in self.cell)
        return f"{self.where} {levels}" if levels else self.where


@dataclass(frozen=True)
class Completed:
    """What a finished run is known by.

    ``metrics`` maps ``split/name`` to the value that summaries compare; ``state_sha256`` digests
    the selected state; ``flags`` are warnings: ``diverged``, ``stuck``, ``near_chance`` and the
    like.
    """

    metrics: Mapping[str, float]
    state_sha256: str
    num_steps: int
    flags: tuple[str, ...] = field(default=())


class Stopped(BaseException):
    """Raised through a job after its checkpoint was saved because somebody asked it to leave.

    Not an ``Exception``: a job's own error handling must not swallow it.
    """


class Checkpoint(Protocol):
    """A sealed, verified state to go on from; never written to."""

    @property
    def step(self) -> int:
        """Number of steps done when it was taken."""

    def path(self, name: str) -> Path:
        """The file that was saved under `name`."""


class Context(Protocol):
    """The service as a job sees it."""

    @property
    def seeds(self) -> Mapping[str, int]:
        """Seed per stream name (see :mod:`ftd.seeds`)."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``: the one device this attempt may use."""

    @property
    def threads(self) -> int:
        """CPU threads to compute with; part of what determines the result."""

    @property
    def numerics(self) -> str:
        """``exact`` (deterministic algorithms) or ``fast``."""

    @property
    def allow_downloads(self) -> bool:
        """Whether weights and data may be fetched from the internet (``ftd.toml``)."""

    @property
    def store(self) -> Store:
        """Shared results that are functions of their inputs."""

    def fingerprint(self, numerics: Mapping[str, Any]) -> None:
        """Declare what the numbers depend on (versions, device, ...), before :meth:`restore`.

        Resuming under another fingerprint marks the run approximate and says what differs.
        """

    def restore(self) -> Checkpoint | None:
        """The newest good checkpoint of earlier attempts, or None to start from step 0."""

    def checkpoint(self, step: int, files: Callable[[], Mapping[str, Writer]]) -> None:
        """A place where the run can be left and resumed, `step` steps done.

        Call it often (after every step).  When a checkpoint is due, or a stop was asked for,
        `files()` names what to save; after a stop request's save, raises :class:`Stopped`.
        """

    def verified(self, source: Input) -> str:
        """The fingerprint of one of the run's inputs, which was as planned when the attempt began.

        Taking it again may take long: a folder's files are looked at one by one, a file is read.
        Raises LookupError for anything that is no input of this run.
        """

    def kept(self, run: str, name: str) -> Path:
        """The file `name` that a run among the inputs kept, verified; it is only to be read.

        `run` is its input's ``called``.  Raises DataError when the run has not kept such a file.
        """

    def workspace(self) -> Path:
        """A folder of this attempt alone, for programs that save their state in their own way.

        Empty at first; later attempts are given a copy of what the newest earlier one left in its
        own, whatever that is: only :meth:`checkpoint` sees to whole and verified states.
        """

    def metric(self, name: str, value: float, step: int) -> None:
        """Record ``split/name`` at `step`; part of the run's reproducible result."""

    def timing(self, name: str, value: float, step: int) -> None:
        """Record a duration or rate; never part of an equality."""

    def progress(self, step: int, num_steps: int, **shown: float | int | str) -> None:
        """What people watch; rate-limited, free to call every step."""

    def note(self, kind: str, **data: Any) -> None:
        """A fact worth keeping in the run's history."""

    def artifact(self, name: str, write: Writer) -> None:
        """Keep a file with the run; `name` is a plain file name."""


P = TypeVar("P", bound=Params)


class Job(ABC, Generic[P]):
    """One kind of work.  Stateless: everything it needs arrives as arguments."""

    Params: ClassVar[type[Params]]
    version: ClassVar[int] = 1  # raise it when the same parameters give other results
    # Modules that `run` imports and that take long.  Built-in jobs: they may be loaded before, in
    # the process that workers are forked from, so importing them touches no device and no thread.
    preload: ClassVar[tuple[str, ...]] = ()
    # Whether a worker may execute many short runs of it, one after the other.  Built-in jobs: one
    # that says so leaves nothing in its process that reaches the next run.
    shares_worker: ClassVar[bool] = False

    def resolve(self, params: P, base: Path) -> P:
        """Make defaults that depend on other values, and paths relative to `base`, explicit.

        Raises InputError for values that cannot work.
        """
        return params

    def with_budget(self, params: Mapping[str, Any], budget: Budget) -> Mapping[str, Any]:
        """The parameters as written, not yet validated, with what `budget` means for this job.

        Raises InputError when it means nothing, or `params` say another length already; a
        ValidationError of :attr:`Params` may pass through.
        """
        raise InputError("this job takes no budget", where="budget", fix="Leave budget out")

    def labels_used(self, params: P) -> str:
        """How many labelled images resolved `params` use, for people; empty when not known."""
        return ""

    def identity(self, params: P) -> Mapping[str, Any]:
        """The JSON values that determine the result: resolved `params` less what cannot matter."""
        return params.model_dump(mode="json")

    def inputs(self, params: P) -> Mapping[str, Input]:
        """What `params` read from outside, by a name for people; fingerprinted into the key."""
        return {}

    def keeps(self, params: P) -> tuple[str, ...] | None:
        """Names of the files that a run will keep for other runs to start from; None: not known."""
        return None

    def primary_metric(self, params: P) -> str:
        """The ``split/name`` that summaries show first."""
        return ""

    @abstractmethod
    def run(self, params: P, context: Context) -> Completed:
        """Do the work.  A pure function of (params, seeds, checkpoint): equal bit for bit however
        often it was interrupted.  Raises DataError or WeightsError for input that can never work.
        """
