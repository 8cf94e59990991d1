"""Recipes by name: functions that return a frozen ``Recipe``; variants derive with ``dataclasses.replace``.

This module is plain Python: it imports no torch, so a flow may read it.
Source of ``crops_joint``: "Dissecting Image Crops", Van Hoorick and Vondrick, ICCV 2021 (arXiv 2011.11831) and the
authors' published code: networks, crop law, loss weights, optimiser and schedule.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from models.categories.spec import AugmentSpec, CategorySpec
from models.crops.spec import (
    CropEvaluationSpec,
    CropLossSpec,
    CropSpec,
    PatchSpec,
    ScaleLaw,
    ThumbnailSpec,
    TrunkSpec,
)
from models.errors import ConfigError
from models.frames import PackSpec
from models.specs import Freeze, GuardSpec, OptimiserSpec, Recipe, ScheduleSpec

RESNET_18, RESNET_34 = (2, 2, 2, 2), (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)

FULL_THUMBNAIL = ThumbnailSpec(
    TrunkSpec(RESNET_34, WIDTHS, "7x7-pool"),
    height=149,
    width=224,
    # The narrowest crop of an 896 px frame is reduced by 1.6: with less, sharpness tells crops apart (see LOG.md).
    scale=ScaleLaw(min_px=224, max_px=280),
)
# The paper moves patches by up to 8 px in pictures of 1,024 px and more; in smaller ones by as much less, or a patch
# shows another cell than the one that its label names.
FULL_PATCHES = PatchSpec(
    TrunkSpec(RESNET_18, WIDTHS, "7x7-pool"), patch_px=96, scale=ScaleLaw(min_px=512, max_px=640), jitter_px=4
)
NARROW_THUMBNAIL = ThumbnailSpec(
    TrunkSpec((1, 1, 1, 1), (16, 32, 64, 128), "3x3"), height=48, width=72, scale=ScaleLaw(min_px=72, max_px=96)
)
NARROW_PATCHES = PatchSpec(
    TrunkSpec((1, 1, 1, 1), (16, 32, 64, 128), "3x3"),
    patch_px=24,
    scale=ScaleLaw(min_px=128, max_px=128),
    jitter_px=1,
)


def crops_joint() -> Recipe:
    """The paper's network, whole: ResNet-34 on the thumbnail and ResNet-18 on 16 patches, joined.

    Unlike the paper's it is not shown the mean colour of a sample, and its patches are moved by 4 px at most, not 8.
    """
    return Recipe(
        name="crops_joint",
        title="Crop detection from thumbnail and patches (ResNet-34 and ResNet-18)",
        system=CropSpec(FULL_THUMBNAIL, FULL_PATCHES),
        pack=PackSpec(597, 896, detail_height=1365, detail_width=2048),
        optimiser=OptimiserSpec("adam", lr=5e-3),
        schedule=ScheduleSpec("exponential", decay=0.942),
        batch_size=64,
        epochs=25,
        precision="bfloat16",
        channels_last=True,
    )


def crops_thumbnail() -> Recipe:
    """The thumbnail half of the paper's network: ResNet-34 on RGB and two coordinate channels."""
    return replace(
        crops_joint(),
        name="crops_thumbnail",
        title="Crop detection from the thumbnail (ResNet-34)",
        system=CropSpec(FULL_THUMBNAIL, None),
        pack=PackSpec(597, 896),
    )


def crops_patches() -> Recipe:
    """The patch half of the paper's network: ResNet-18, shared by 16 patches of 96 x 96."""
    return replace(
        crops_joint(),
        name="crops_patches",
        title="Crop detection from 16 patches (ResNet-18)",
        system=CropSpec(None, FULL_PATCHES),
    )


def crops_thumbnail_narrow() -> Recipe:
    """A quarter of the width and a third of the depth: learns from a few hundred photos on two CPU cores.

    With so few photos the decision is learnt long before the rectangle; ten times the paper's weight on the rectangle
    keeps its gradient alive (IoU of crops on val 0.83 instead of 0.79, see LOG.md).
    """
    loss = CropLossSpec(rectangle_weight=30.0)
    # Two cores spend as long on looking at val after every epoch as on training: two crops a photo are enough.
    evaluation = CropEvaluationSpec(crops_per_photo=2, response_photos=16)
    return Recipe(
        name="crops_thumbnail_narrow",
        title="Crop detection from the thumbnail (narrow: quarter-width ResNet-10, 72x48)",
        system=CropSpec(NARROW_THUMBNAIL, None, loss=loss, evaluation=evaluation, flips=("horizontal", "vertical")),
        pack=PackSpec(256, 384),
        optimiser=OptimiserSpec("adamw", lr=3e-3, weight_decay=0.02),
        schedule=ScheduleSpec("one_cycle", warmup_fraction=0.25),
        batch_size=16,
        epochs=30,
        channels_last=True,
    )


def crops_patches_narrow() -> Recipe:
    """The patch half on as little: a quarter of the width and half of the depth, patches of 24 px of 128."""
    thumbnail = crops_thumbnail_narrow()
    return replace(
        thumbnail,
        name="crops_patches_narrow",
        title="Crop detection from 16 patches (narrow: quarter-width ResNet-10, 24x24)",
        system=replace(thumbnail.system, thumbnail=None, patches=NARROW_PATCHES),
        pack=PackSpec(256, 384, detail_height=341, detail_width=512),
        optimiser=OptimiserSpec("adamw", lr=4e-3, weight_decay=0.02),
        epochs=10,
    )


def crops_joint_narrow() -> Recipe:
    """Both narrow halves joined; they go on learning from what they learnt alone (``compare_runs(..., staged=True)``).

    From nothing it gets as far in twice the epochs (LOG.md).
    """
    patches = crops_patches_narrow()
    return replace(
        patches,
        name="crops_joint_narrow",
        title="Crop detection from thumbnail and patches (narrow: quarter-width ResNet-10)",
        system=replace(patches.system, thumbnail=NARROW_THUMBNAIL),
        optimiser=OptimiserSpec("adamw", lr=2e-3, weight_decay=0.02),
        epochs=15,
    )


def categories_resnet18() -> Recipe:
    """ResNet-18 on 224 x 224 from nothing: one label a photo."""
    return Recipe(
        name="categories_resnet18",
        title="Photo categories (ResNet-18)",
        system=CategorySpec(
            "resnet18",
            input_px=224,
            augment=AugmentSpec(turn_deg=5.0, kernels=("triangle", "cubic", "lanczos")),
            label_smoothing=0.1,
        ),
        pack=PackSpec(256, 256),
        optimiser=OptimiserSpec("sgd", lr=0.1, weight_decay=5e-5, max_gradient_norm=5.0),
        schedule=ScheduleSpec("cosine", warmup_fraction=0.05),
        batch_size=128,
        epochs=60,
        ema_decay=0.999,
        precision="bfloat16",
        channels_last=True,
    )


def categories_resnet34() -> Recipe:
    """ResNet-34 on 224 x 224 from nothing."""
    return _deeper("resnet34", "ResNet-34")


def categories_resnet50() -> Recipe:
    """ResNet-50 on 224 x 224 from nothing."""
    return _deeper("resnet50", "ResNet-50")


def _deeper(network: str, title: str) -> Recipe:
    """``categories_resnet18`` with another network."""
    base = categories_resnet18()
    system = replace(base.system, network=network)
    return replace(base, name=f"categories_{network}", title=f"Photo categories ({title})", system=system)


def categories_narrow() -> Recipe:
    """A quarter-width ResNet-18 on 64 x 64: learns a few labels from a few hundred photos on two CPU cores."""
    return replace(
        categories_resnet18(),
        name="categories_narrow",
        title="Photo categories (narrow: quarter-width ResNet-18, 64x64)",
        system=CategorySpec("resnet18", input_px=64, width=0.25),
        pack=PackSpec(80, 80),
        optimiser=OptimiserSpec("adamw", lr=4e-3, weight_decay=0.02, max_gradient_norm=5.0),
        schedule=ScheduleSpec("one_cycle", warmup_fraction=0.25),
        batch_size=32,
        epochs=20,
        ema_decay=None,
        guards=GuardSpec(spike_factor=10.0),
        precision="float32",
        channels_last=False,
    )


def categories_mobilenet_transfer() -> Recipe:
    """MobileNetV2 from given weights (``start_from``): first the last layer alone, then the last five blocks too.

    These learn the slower the deeper they lie (Howard and Ruder, ULMFiT, arXiv 1801.06146); what precedes them stays.
    With a hundred photos the last layer alone does best, and the best epoch's weights are those that count.
    """
    factors = {14: 0.03, 15: 0.03, 16: 0.03, 17: 0.1, 18: 0.1}
    kept = tuple(Freeze(f"trunk.layers.{layer}.") for layer in range(min(factors)))
    return replace(
        categories_resnet18(),
        name="categories_mobilenet_transfer",
        title="Photo categories (MobileNetV2, from given weights)",
        system=CategorySpec("mobilenet_v2", input_px=224, label_smoothing=0.1),
        optimiser=OptimiserSpec(
            "adamw",
            lr=4e-3,
            weight_decay=0.02,
            max_gradient_norm=5.0,
            rate_factors=tuple((f"trunk.layers.{layer}.", factor) for layer, factor in factors.items()),
        ),
        schedule=ScheduleSpec("one_cycle", warmup_fraction=0.25),
        frozen=(Freeze("trunk", until_epoch=6), *kept),
        batch_size=32,
        epochs=12,
        ema_decay=None,
        guards=GuardSpec(spike_factor=10.0),
    )


KINDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
    type(None): "null",
}

RECIPES: dict[str, Callable[[], Recipe]] = {
    build.__name__: build
    for build in (
        crops_joint,
        crops_thumbnail,
        crops_patches,
        crops_thumbnail_narrow,
        crops_patches_narrow,
        crops_joint_narrow,
        categories_resnet18,
        categories_resnet34,
        categories_resnet50,
        categories_narrow,
        categories_mobilenet_transfer,
    )
}


def resolve(name: str) -> Recipe:
    """The recipe of that name; ``ConfigError`` (a ``ValueError``) lists the known ones."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}", recipe=name)
    return RECIPES[name]()


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe that ``Recipe.as_dict`` described; ``ConfigError`` names an unknown, missing or impossible value."""
    return _build(Recipe, values, "recipe")  # type: ignore[no-any-return]


def _build(kind: type[Any], values: Any, path: str) -> Any:
    """An instance of the dataclass ``kind`` from JSON values; ``path`` is how messages call the place."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a mapping, not {values!r}", key=path)
    hints = {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}
    if unknown := sorted(set(values) - set(hints)):
        raise ConfigError(f"{path} has no {unknown[0]!r}: its keys are {', '.join(hints)}", key=f"{path}.{unknown[0]}")
    if missing := [each.name for each in fields(kind) if each.name not in values]:
        message = f"{path} lacks {missing[0]!r}: a recipe is complete; train anew what an older version trained"
        raise ConfigError(message, key=f"{path}.{missing[0]}")
    return kind(**{name: _value(hints[name], values[name], f"{path}.{name}") for name in values})


def _value(hint: Any, value: Any, path: str) -> Any:
    """``value`` as the type ``hint`` says; ``ConfigError`` where it is none."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    if classes := [each for each in kinds if is_dataclass(each)]:
        return _build(_chosen(classes, value, path), value, path)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return _items(get_args(hint), value, path)
    allowed = [choice for each in kinds if get_origin(each) is Literal for choice in get_args(each)]
    if allowed and value in allowed:
        return value
    plain = tuple(each for each in kinds if isinstance(each, type))
    plain = (*plain, int) if float in plain else plain
    if plain and isinstance(value, plain) and (bool in plain or not isinstance(value, bool)):
        return value
    if allowed:
        expected = f"choose one of {', '.join(map(repr, allowed))}"
    else:
        names = [name for kind, name in KINDS.items() if kind in {get_origin(each) or each for each in kinds}]
        expected = f"expected {', or '.join(names)}"
    raise ConfigError(f"{path} cannot be {value!r}: {expected}", key=path)


def _items(hints: tuple[Any, ...], values: Any, path: str) -> tuple[Any, ...]:
    """A tuple of any length (``tuple[int, ...]``), or of one item for each hint."""
    each = hints[:1] * len(values) if hints[-1] is Ellipsis else hints
    if len(each) != len(values):
        raise ConfigError(f"{path} must have {len(each)} items, not {len(values)}", key=path)
    return tuple(_value(hint, value, f"{path}[{n}]") for n, (hint, value) in enumerate(zip(each, values, strict=True)))


def _chosen(classes: list[Any], value: Any, path: str) -> Any:
    """Of several dataclasses, the one whose ``kind`` the mapping names."""
    if len(classes) == 1:
        return classes[0]
    by_kind = {get_args(get_type_hints(each)["kind"])[0]: each for each in classes}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in by_kind:
        raise ConfigError(f"{path}.kind cannot be {kind!r}: choose one of {', '.join(by_kind)}", key=f"{path}.kind")
    return by_kind[kind]
