"""The job ``changes``: what fine-tuning did to a network, layer by layer.

The network that a run started from and the one it kept are compared: how far the weights moved, how
alike the features of the same images are, how well they tell the classes apart, and which classes
single units answer to.  Nothing is trained but a linear classifier per layer, and no image that the
run tested on is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftd.errors import InputError
from ftd.job import Completed, Context, Input, Job
from jobs import records, sources, targets
from jobs.layers import numbered
from jobs.params.changes import ChangesParams
from jobs.params.features import layer_number


class Changes(Job[ChangesParams]):
    """A network before and after fine-tuning, compared."""

    Params = ChangesParams
    version = 1
    preload = (
        "jobs.data.prepare",
        "jobs.features.forward",
        "jobs.inspection.study",
        "jobs.models.build",
        "torchvision.models",
    )

    def resolve(self, params: ChangesParams, base: Path) -> ChangesParams:
        """Number the layers, make paths absolute; refuse what cannot be compared."""
        model, target = params.model, targets.resolve(params.target, base)
        if model.weights == "none":
            raise InputError(
                "model.weights: none is nothing to compare with",
                where="model.weights",
                fix="Give the weights that the run started from",
            )
        if target.multi_label:
            raise InputError(
                "changes are measured with one label per image, and this target has several",
                where="target.multi_label",
            )
        for wanted, is_wanted in (
            ("images: val", params.images == "val"),
            ("probe: true", params.probe),
        ):
            if is_wanted and not targets.validates(target):
                raise InputError(
                    f"{wanted} needs validation images, and the target asks for none",
                    where="target",
                    fix="Use images: train and probe: false, or set target.val_per_class",
                )
        records.check_size(model.name, target.crop_size or target.decode_size)
        weights = sources.resolve(model.name, model.weights, base)
        layers = {layer_number(one, model.name) for one in params.layers or ()}
        shown = str(layer_number(params.pictures.layer, model.name))
        return params.model_copy(
            update={
                "model": model.model_copy(update={"weights": weights}),
                "target": target,
                "layers": list(map(str, sorted(layers))) or None,
                "pictures": params.pictures.model_copy(update={"layer": shown}),
            }
        )

    def identity(self, params: ChangesParams) -> Mapping[str, Any]:
        """Both networks, the images, and what is looked at."""
        model = params.model
        return {
            **model.identity,
            "after": sources.identity(model.name, params.after),
            "target": targets.identity(params.target),
            **params.model_dump(mode="json", include={"images", "layers", "probe", "pictures"}),
        }

    def inputs(self, params: ChangesParams) -> Mapping[str, Input]:
        """The target's images and labels, the weights before, and the run."""
        return {
            **targets.inputs(params.target),
            **sources.inputs(params.model.name, params.model.weights),
            "after": params.after.kept,
        }

    def primary_metric(self, params: ChangesParams) -> str:
        """How alike the features are below the classifier."""
        names = numbered(params.model.name)
        shown = names[-2] if params.layers is None else names[int(params.layers[-1]) - 1]
        return f"{params.images}/cka_{shown}"

    def run(self, params: ChangesParams, context: Context) -> Completed:
        """Look at the images with both networks, measure, keep."""
        from jobs.data.prepare import prepared
        from jobs.inspection.material import Material
        from jobs.inspection.study import conclude
        from jobs.train import numerics

        numerics.configure(context.numerics, context.threads)
        context.fingerprint(numerics.fingerprint(context.numerics, context.device))
        context.restore()
        wanted = params.model.preprocessing
        data = prepared(
            params.target, self.inputs(params)["target"], wanted.interpolation, context, None, ()
        )
        return conclude(Material.gathered(params, data, wanted, context))
