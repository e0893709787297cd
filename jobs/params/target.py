"""Parameters of the images a network is adapted to."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.classes import ClassesParams, ImbalanceParams
from jobs.params.fields import Fraction

TorchvisionName = Literal[
    "torchvision/CIFAR10", "torchvision/CIFAR100", "torchvision/Caltech101", "torchvision/DTD",
    "torchvision/EuroSAT", "torchvision/FGVCAircraft", "torchvision/FashionMNIST",
    "torchvision/Flowers102", "torchvision/Food101", "torchvision/GTSRB", "torchvision/KMNIST",
    "torchvision/MNIST", "torchvision/OxfordIIITPet", "torchvision/STL10", "torchvision/SVHN",
    "torchvision/StanfordCars", "torchvision/USPS",
]  # fmt: skip
Dataset = Literal["elpv", "digits", "mnist5k", "glyphs", "folder", "csv", "hf", TorchvisionName]
IN_PACKAGES = ("elpv", "digits", "mnist5k", "glyphs")
WITHOUT_FOLDER = ("elpv", "digits", "mnist5k")


class ElpvParams(Params):
    """How the defect probabilities of the solar cells (0, 1/3, 2/3, 1) become two classes."""

    threshold: float = Field(
        default=0.5, ge=0, lt=1, description="A cell is defective above this probability."
    )
    uncertain: Literal["keep", "drop"] = Field(
        default="keep", description="Cells the experts were unsure about (1/3 and 2/3)."
    )


class HuggingFaceParams(Params):
    """Which columns of a Hugging Face dataset hold what."""

    image: str = Field(default="image", description="Column of the images.")
    label: str = Field(default="label", description="Column of the labels (their classes named).")


class GlyphsParams(Params):
    """How many pictures there are of the letters and symbols."""

    variants: int = Field(
        default=25,
        ge=1,
        le=1000,
        description="Pictures of each character in each font (14 of them), differently turned, "
        "slanted, sized and shifted; those of a smaller number are among those of a larger one.",
    )


class TargetParams(Params):
    """The images the network is adapted to, and how they are split."""

    dataset: Dataset = Field(
        description="elpv (solar cells), digits (scikit-learn's), mnist5k (5,000 of MNIST's), "
        "glyphs (letters and symbols drawn from fonts), folder (your own images), csv (a "
        "manifest), hf (a Hugging Face dataset saved to disk), or torchvision/NAME."
    )
    folder: str | None = Field(
        default=None,
        description="For dataset folder: a folder with one subfolder of images per class, or with "
        "train, val and test folders of that kind. For csv: where the images are; default: the "
        "manifest's folder. For hf: the saved dataset. For torchvision/NAME: the root that it was "
        "downloaded to. For glyphs: fonts to draw instead of matplotlib's. Relative to the spec.",
    )
    file: str | None = Field(
        default=None,
        description="For dataset csv: the manifest, with the columns path and label, and split, "
        "group and box where wanted. Relative to the spec.",
    )
    multi_label: bool = Field(
        default=False,
        description="For csv and hf: an image has any number of labels (in a manifest separated "
        "by semicolons), and each class is learned by itself.",
    )
    hf: HuggingFaceParams = HuggingFaceParams()
    classes: ClassesParams = ClassesParams()
    corrupt: Literal["error", "skip"] = Field(
        default="error",
        description="What an image that cannot be read is: error: the end of the run; skip: left "
        "out, and recorded in skipped.json.",
    )
    decode_size: int = Field(
        default=224,
        ge=8,
        le=4096,
        description="Pixels: images are resized to this shorter side and cropped to a square.",
    )
    crop_size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Pixels: side of the square the network sees; default: decode_size.",
    )
    split: Literal["random", "blocks", "given"] | None = Field(
        default=None,
        description="random: by image (or group), per class; blocks: neighbouring files stay "
        "together; given: the dataset's own train, val and test. Default: blocks for elpv, given "
        "where the dataset has train and test, else random.",
    )
    test_fraction: float = Field(
        default=0.25, gt=0, lt=1, description="Share of all images kept for the test."
    )
    test_per_class: int | None = Field(
        default=None, ge=1, description="Test images per class, instead of test_fraction."
    )
    test_count: int | None = Field(
        default=None,
        ge=1,
        description="Test images altogether, in the classes' proportions; instead of "
        "test_fraction.",
    )
    val_fraction: Fraction = Field(
        default=0.2, description="Share of the other images used for validation."
    )
    val_per_class: int | None = Field(
        default=None,
        ge=0,
        description="Validation images per class, instead of val_fraction; 0 for none.",
    )
    val_count: int | None = Field(
        default=None,
        ge=0,
        description="Validation images altogether, in the classes' proportions; instead of "
        "val_fraction.",
    )
    per_class: int | None = Field(
        default=None,
        ge=1,
        description="Training images per class; default: all. The images of a smaller number are "
        "among those of a larger one.",
    )
    num_images: int | None = Field(
        default=None,
        ge=1,
        description="Training images altogether, in the classes' proportions; instead of "
        "per_class, and nested like it.",
    )
    train_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="The same as a share of the training images there are.",
    )
    imbalance: ImbalanceParams | None = Field(
        default=None, description="A long tail of training images, from per_class or num_images."
    )
    duplicates: Literal["report", "drop_from_train"] = Field(
        default="report",
        description="Training images whose content, or nearly that, is also validated or tested "
        "on: only counted, or left out before training images are chosen.",
    )
    elpv: ElpvParams = ElpvParams()
    glyphs: GlyphsParams = GlyphsParams()

    @model_validator(mode="after")
    def _consistent(self) -> TargetParams:
        self._check_source()
        self._check_counts()
        if self.crop_size is not None and self.crop_size > self.decode_size:
            raise ValueError("crop_size must not be larger than decode_size")
        return self

    def _check_source(self) -> None:
        dataset = self.dataset
        if dataset in WITHOUT_FOLDER and self.folder is not None:
            raise ValueError(f"dataset: {dataset} takes no folder; it comes from a package")
        if dataset not in (*IN_PACKAGES, "csv") and self.folder is None:
            raise ValueError(f"dataset: {dataset} needs a folder")
        if (dataset == "csv") != (self.file is not None):
            raise ValueError("file goes with dataset: csv, and dataset: csv needs it")
        if self.multi_label and dataset not in ("csv", "hf"):
            raise ValueError("multi_label goes with dataset: csv or hf")
        if self.split == "given" and dataset in IN_PACKAGES:
            raise ValueError(f"split: given: {dataset} has no split of its own")

    def _check_counts(self) -> None:
        for names in (
            ("test_per_class", "test_count"),
            ("val_per_class", "val_count"),
            ("per_class", "num_images", "train_fraction"),
        ):
            if sum(getattr(self, name) is not None for name in names) > 1:
                raise ValueError(f"give only one of {', '.join(names)}")
        if self.multi_label:
            chosen = ("test_per_class", "val_per_class", "per_class", "imbalance")
            wrong = next((name for name in chosen if getattr(self, name) is not None), None)
            if wrong is not None:
                raise ValueError(
                    f"{wrong} counts per class, which multi_label has no single one of"
                )
        if self.imbalance is not None and self.per_class is None:
            if self.imbalance.hold == "max":
                raise ValueError("imbalance with hold: max needs per_class, the largest class")
            if self.num_images is None:
                raise ValueError("imbalance with hold: total needs per_class or num_images")
        in_blocks = self.split == "blocks" or (self.split is None and self.dataset == "elpv")
        if in_blocks and (self.test_per_class or self.test_count or self.val_count):
            raise ValueError(
                "split: blocks, elpv's default, takes test_fraction, val_fraction or val_per_class"
            )


def is_torchvision(dataset: str) -> bool:
    """Whether `dataset` is one of torchvision's."""
    return dataset in get_args(TorchvisionName)
