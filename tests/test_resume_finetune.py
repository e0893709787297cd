"""Exact resumes of real fine-tuning: anywhere, any number of times, from every entry needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ftd.job import Completed, Context
from jobs.data import augment, order
from jobs.finetune import Finetune, FinetuneParams
from jobs.models import dropout, initialise
from tests.entries import Situation, check_entries
from tests.finetuning import params
from tests.resume import (
    Attempts,
    Case,
    Stop,
    Whole,
    at_random,
    check_ways,
    killed_during_resume,
    run_whole,
    twice_in_a_row,
)

pytestmark = pytest.mark.usefixtures("torch_left_as_found")


# --- left and killed anywhere -----------------------------------------------------------------

STEPS_PER_EPOCH = 4  # 30 images, at most 8 at once


def place(step: int, batch: int = 0) -> int:
    """The number of the place after `step`, or after a validation's `batch` (3: its end).

    The first two come when the shards of the images have been looked up.
    """
    validations_before = (step - 1) // STEPS_PER_EPOCH
    return 2 + step + 3 * validations_before + batch


PLACES = {
    "decoding": 1,
    "before the first step": 2,
    "step 1": place(1),
    "mid-epoch": place(2),
    "the last step of an epoch": place(3),
    "an epoch's end": place(4),
    "inside validation": place(4, 1),
    "after validation": place(4, 3),
    "the first step of an epoch": place(5),
    "before a drop of the learning rate": place(8, 3),
    "after a drop of the learning rate": place(9),
    "the last step": place(12),
    "the last validation": place(12, 2),
    "inside the test": place(12, 3 + 4),
}


@pytest.fixture(scope="module")
def case(store: Path) -> Case:
    """Crops, flips, dropout, BatchNorm, momentum, a step schedule, selection by validation."""
    return Case(Finetune(), params(), store)


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The case, uninterrupted."""
    return run_whole(case, tmp_path_factory.mktemp("whole"))


def test_the_places_are_where_they_are_thought_to_be(whole: Whole) -> None:
    """The numbering of places that the tests go by is the job's."""
    steps = [0, 0]
    for step in range(1, 13):
        steps += [step] * (4 if step % STEPS_PER_EPOCH == 0 else 1)
    assert list(whole.places[: len(steps)]) == steps
    assert len(whole.places) >= PLACES["inside the test"]


@pytest.mark.parametrize("where", PLACES)
def test_left_anywhere_it_ends_the_same(
    where: str, case: Case, whole: Whole, tmp_path: Path
) -> None:
    """Left and resumed, a run has the same weights, metrics and files, bitwise."""
    check_ways(case, whole, tmp_path, [[Stop(PLACES[where])]])


@pytest.mark.parametrize("where", ["before the first step", "mid-epoch", "inside the test"])
def test_left_again_before_it_came_further(
    where: str, case: Case, whole: Whole, tmp_path: Path
) -> None:
    """Two stops in a row change nothing, nor does a kill after them."""
    check_ways(case, whole, tmp_path, twice_in_a_row([PLACES[where]]))


@pytest.mark.parametrize("where", ["step 1", "inside validation", "the last step"])
def test_killed_while_it_resumes(where: str, case: Case, whole: Whole, tmp_path: Path) -> None:
    """A checkpoint that was read by an attempt that died is read again."""
    check_ways(case, whole, tmp_path, killed_during_resume([PLACES[where]]))


def test_left_many_times(case: Case, whole: Whole, tmp_path: Path) -> None:
    """Leaving again and again, sometimes without having come further, changes nothing either."""
    stops = (3, 4, 3, 5, 3, 4, 3, 3, 6, 4, 6, 3, 6, 8)
    check_ways(case, whole, tmp_path, [[Stop(stop) for stop in stops]])


def test_left_and_killed_at_random(case: Case, whole: Whole, tmp_path: Path) -> None:
    """Any mixture of stops and kills ends the same."""
    check_ways(case, whole, tmp_path, at_random(whole, seed=5, num_ways=4))


def test_the_threads_of_an_interrupted_decoding_do_not_matter(
    case: Case, whole: Whole, tmp_path: Path
) -> None:
    """Images that an attempt with other threads decoded are the same images."""
    fresh = replace(case, store=tmp_path / "store")
    attempts = Attempts(replace(fresh, threads=3), tmp_path / "run")
    assert attempts.run(Stop(PLACES["decoding"])) is None
    assert len([*fresh.store.glob("images/*/images.npy")]) == 1, "one of two shards is decoded"
    attempts.case = fresh
    completed = attempts.run()
    assert completed is not None
    assert not whole.outcome.difference(attempts.outcome(completed))


def test_a_diverged_run_resumes_as_such(store: Path, tmp_path: Path) -> None:
    """Left right after it diverged, a run ends as if it had not been left."""
    case = Case(Finetune(), params(train={"lr": 1e30, "epochs": 20}), store)
    whole = run_whole(case, tmp_path / "whole")
    assert whole.outcome.completed.flags == ("diverged",)
    places = range(whole.places.index(whole.places[-1]) + 1, len(whole.places) + 1)
    check_ways(case, whole, tmp_path / "ways", killed_during_resume(places))


# --- the entries of a checkpoint --------------------------------------------------------------


def small(store: Path, layers: str = "F(1-17)FT(18)R(19)", **train: object) -> Case:
    """Ten images, two steps in each of three epochs, little that is trained."""
    target = {"per_class": 1, "val_per_class": 1, "decode_size": 20, "crop_size": 16}
    wanted = params(layers=layers, target=target, train={"batch_size": 5, **train})
    return Case(Finetune(), wanted, store)


LAST_STEP, VALIDATED = 11, 14  # places: one step is left to do; the last validation is done


def test_every_entry_of_a_checkpoint_matters(store: Path, tmp_path: Path) -> None:
    """Whatever is left out or changed shows, in one of the situations that it is kept for."""
    case = small(store)
    overshooting = small(store, lr=1.0, schedule="constant", step_size_epochs=None)
    adamw = small(store, "F(1-18)R(19)", optimizer="adamw", lr=1e-3, keep="last")
    last_is_best = run_whole(case, tmp_path / "last")
    first_is_best = run_whole(overshooting, tmp_path / "first")
    assert last_is_best.places[LAST_STEP - 1 : VALIDATED] == (5, 6, 6, 6)
    assert "test_last/nll" in first_is_best.outcome.completed.metrics
    assert "test_last/nll" not in last_is_best.outcome.completed.metrics
    situations = [
        Situation(overshooting, first_is_best, LAST_STEP),
        Situation(case, last_is_best, LAST_STEP),
        Situation(case, last_is_best, VALIDATED),
        Situation(adamw, run_whole(adamw, tmp_path / "adamw"), LAST_STEP),
    ]
    num_tensors = 8 + 8 + 5 + 2 * 3 + 1  # weights, the best ones, momentum, AdamW's three, sums
    assert check_entries(situations, tmp_path / "entries") == num_tensors + 3


# --- with more switched on --------------------------------------------------------------------

# A search for the learning rate, reestimated statistics, an average, patience that ends at step 8,
# parts of batches in bfloat16, images that are mixed and drawn equally often from each class.
EVERYTHING = {
    "batchnorm": {"frozen": "reestimate"}, "ema_decay": 0.5, "epochs": 8, "schedule": "constant",
    "early_stop": {"patience_steps": 6, "min_delta": 0.5}, "step_size_epochs": None,
    "micro_batch_size": 3, "clip_norm": 100.0, "precision": "bfloat16", "label_smoothing": 0.1,
    "augment": {"mixup": 0.4, "cutmix": 1.0, "rand_augment": {}}, "sampling": "balanced",
}  # fmt: skip
SEARCH = {"lowest": 0.002, "highest": 0.01, "steps": 5, "divisor": 1}
FIFTH_STEP, EIGHTH_VALIDATED = 18, 20  # places, with and without a search


def test_every_entry_of_a_larger_checkpoint_matters(store: Path, tmp_path: Path) -> None:
    """What searches, averages and patience add to a checkpoint is needed there."""
    searching = small(store, "F(1-18)R(19)", **EVERYTHING, lr_find=SEARCH)
    slow = small(store, "F(1-18)R(19)", **EVERYTHING, lr=0.0005)
    middle_is_best = run_whole(searching, tmp_path / "middle")
    last_is_best = run_whole(slow, tmp_path / "last")
    assert middle_is_best.places[FIFTH_STEP - 1] == 5
    assert last_is_best.places[EIGHTH_VALIDATED - 1] == 8
    assert middle_is_best.outcome.completed.num_steps == 8, "patience ends it"
    assert "test_last/nll" in middle_is_best.outcome.completed.metrics
    assert "test_last/nll" not in last_is_best.outcome.completed.metrics
    situations = [
        Situation(searching, middle_is_best, FIFTH_STEP),
        Situation(slow, last_is_best, EIGHTH_VALIDATED),
    ]
    num_tensors = 4 * 2 + 1  # weights, average, the best ones, momentum; sums
    num_facts = 3 + 2 + 1  # those of each run, patience's, the learning rate found
    assert check_entries(situations, tmp_path / "entries") == num_tensors + num_facts


def test_left_anywhere_with_everything_on(store: Path, tmp_path: Path) -> None:
    """Left while it searches or estimates, trains or validates the average, it ends the same."""
    case = small(store, "F(1-18)R(19)", **EVERYTHING, lr_find=SEARCH)
    whole = run_whole(case, tmp_path / "whole")
    ways = [[Stop(place)] for place in range(3, FIFTH_STEP + 1, 3)]
    check_ways(case, whole, tmp_path / "ways", [*ways, *twice_in_a_row([FIFTH_STEP - 2])])


def test_left_at_every_step_while_layers_join(store: Path, tmp_path: Path) -> None:
    """A run goes on the same before, at and after the step when a layer starts to learn."""
    case = small(
        store, "F(1-16)FT(17-18)R(19)", unfreeze={"every_steps": 2}, frozen_dropout="on",
        l2_sp={"alpha": 0.1, "beta": 0.1}, batchnorm={"tuned": "stored", "group_size": 2},
    )  # fmt: skip
    whole = run_whole(case, tmp_path / "whole")
    steps = [whole.places.index(step) + 1 for step in (1, 2, 3, 4, 5)]
    check_ways(case, whole, tmp_path / "ways", [[Stop(place)] for place in steps])


# --- randomness that is not keyed -------------------------------------------------------------

GENERATOR = torch.Generator()  # the global state that keyed draws do without


class Reseeding(Finetune):
    """Seeds the global generator whenever an attempt begins, as scripts do."""

    def run(self, params: FinetuneParams, context: Context) -> Completed:
        """The same draws in each attempt."""
        GENERATOR.manual_seed(1)
        return super().run(params, context)


def drawn_bits(shape: tuple[int, ...]) -> torch.Tensor:
    """64 random bits each, int64."""
    return torch.empty(shape, dtype=torch.int64).random_(generator=GENERATOR)


def drawn_order(digests: npt.NDArray[np.uint64], *_: object) -> npt.NDArray[np.int64]:
    """As ``keyed_order``."""
    order: npt.NDArray[np.int64] = torch.randperm(len(digests), generator=GENERATOR).numpy()
    return order


def drawn_views(digests: npt.NDArray[np.uint64], *_: object) -> npt.NDArray[np.uint64]:
    """As ``keyed_bits``."""
    bits: npt.NDArray[np.uint64] = drawn_bits(digests.shape).numpy().view(np.uint64)
    return bits << np.uint64(1)


def drawn_masks(_: int, sample_keys: torch.Tensor, num_units: int) -> torch.Tensor:
    """As ``random_bits``."""
    return drawn_bits((len(sample_keys), num_units)) << 1


def drawn_weights(shape: torch.Size, std: float, *_: object) -> torch.Tensor:
    """As ``_normal``."""
    return torch.empty(shape).normal_(0, std, generator=GENERATOR)


DRAWS = {
    "order": (order, "keyed_order", drawn_order),
    "crops and flips": (augment, "keyed_bits", drawn_views),
    "dropout": (dropout, "random_bits", drawn_masks),
    "initial weights": (initialise, "_normal", drawn_weights),
}


@pytest.mark.parametrize("what", DRAWS)
def test_draws_from_a_global_generator_are_caught(
    what: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where draws depend on the ones before, a resumed run is another one, and is seen to be."""
    monkeypatch.setattr(*DRAWS[what])
    case = small(store)
    whole = run_whole(case, tmp_path / "whole")
    with pytest.raises(AssertionError, match="make another run: state"):
        check_ways(case, whole, tmp_path / "ways", [[Stop(LAST_STEP)]])


@pytest.mark.parametrize("what", [what for what in DRAWS if what != "initial weights"])
def test_seeding_the_global_generator_again_is_caught(
    what: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed set at the start makes runs equal, but not resumed ones.

    (Initial weights are the exception: a checkpoint replaces whatever an attempt drew.)
    """
    monkeypatch.setattr(*DRAWS[what])
    case = replace(small(store), job=Reseeding())
    whole = run_whole(case, tmp_path / "whole")
    assert not whole.outcome.difference(run_whole(case, tmp_path / "again").outcome)
    with pytest.raises(AssertionError, match="make another run: state"):
        check_ways(case, whole, tmp_path / "ways", [[Stop(LAST_STEP)]])
