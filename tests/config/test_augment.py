"""Augmentations in YAML and on the command line: composition, and one sentence per mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.augment import AugmentConfig, Choose, default_augment
from mmpretrain.config.compose import ConfigError, compose, diff_configs, load_config, save_config
from mmpretrain.config.data import Kind, ModalityConfig

LEFT = "data.modalities.left"
# Of both papers: CoMM's three kinds, and FactorCL's for synthetic data, affect data, cartoons, and noise where nothing
# is heard; not its mixing of samples nor its time warping.
PUBLISHED: dict[str, tuple[Kind, dict[str, Any]]] = {
    "comm images": (Kind.image, {"crop": [0.08, 1], "flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.5}),
    "comm sequences": (Kind.sequence, {"drop": 0.5, "drop_share": [0, 0.8], "noise": 0.5, "noise_std": 0.1}),
    "comm vectors": (Kind.vector, {"noise": 0.5, "noise_std": 0.1}),
    "comm texts": (Kind.text, {"mask": 0.15}),
    "factorcl vectors": (
        Kind.vector,
        {"choose": "one", "swap": 1, "noise": 1, "noise_std": 0.01, "drop": 1, "drop_share": [0.1, 0.1]},
    ),
    "factorcl sequences": (
        Kind.sequence,
        {"choose": "one", "shuffle": 1, "noise": 1, "noise_std": 0.1, "drop": 1, "drop_share": [0.2, 0.2]},
    ),
    "factorcl texts": (Kind.text, {"delete": 1}),
    "factorcl images": (Kind.image, {"crop": [0.2, 1], "flip": 0.5, "jitter": 0.8}),
    "factorcl unique images": (Kind.image, {"flip": 0.5, "jitter": 0.8}),
    "factorcl unique sequences": (Kind.sequence, {"noise": 1, "noise_std": 0.1, "silent": 0.05}),
    "factorcl unique vectors": (Kind.vector, {"noise": 0.5, "drop": 0.5, "features": [3, 4, 7]}),
}


def left(*tokens: str) -> ModalityConfig:
    """The modality ``left`` of the digits under these settings of it."""
    return compose(["experiment=digits", *(f"{LEFT}.{token}" for token in tokens)]).data.modalities["left"]


def problems(*tokens: str) -> list[str]:
    """The problems that refuse these tokens."""
    with pytest.raises(ConfigError) as caught:
        left(*tokens)
    return caught.value.problems


def test_nothing_is_set_by_default() -> None:
    modality = left()
    assert (modality.load_size, modality.augment, modality.unique, modality.train) == (None, None, None, None)
    assert AugmentConfig().operations == {}


def test_a_single_key_makes_an_augmentation_of_that_alone() -> None:
    augment = left("augment.crop=[0.3,1]").augment
    assert augment is not None and augment.crop == [0.3, 1.0] and augment.operations == {"crop": 1.0}


def test_later_layers_change_single_keys_and_null_removes() -> None:
    augment = left("augment={crop: [0.3, 1], flip: 0.5}", "augment.flip=0.25", "augment.crop=null").augment
    assert augment is not None and augment.crop is None and augment.operations == {"flip": 0.25}
    assert left("augment={crop: [0.3, 1]}", "augment=null").augment is None
    assert left("train={flip: 1}", "load_size=[10,8]", "load_size=null").load_size is None
    assert left("unique={}").unique == AugmentConfig()


def test_other_entries_are_still_removed_by_null() -> None:
    config = compose(["experiment=digits", f"{LEFT}=null", "model.encoders.left=null"])
    assert set(config.data.modalities) == set(config.model.encoders) == {"right", "caption"}


def test_saved_augmentations_come_back(tmp_path: Path) -> None:
    config = compose(["experiment=digits", f"{LEFT}.augment={{choose: one, crop: [0.3, 1]}}", f"{LEFT}.train.flip=0.5"])
    save_config(config, tmp_path / "config.yaml")
    again = load_config(tmp_path / "config.yaml")
    assert again == config and diff_configs(config, again) == []
    augment = again.data.modalities["left"].augment
    assert augment is not None and augment.choose is Choose.one


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_augmentations_can_be_written(name: str) -> None:
    kind, settings = PUBLISHED[name]
    settings = settings | {"choose": Choose(settings.get("choose", "each"))}
    augment = AugmentConfig(**settings)
    assert augment.problems("augment", kind) == []
    assert set(augment.operations) == {key for key in settings if key in kind.row.operations}


def test_comms_four_kinds_are_among_the_published() -> None:
    assert {f"comm {kind}s" for kind in ("image", "text", "vector", "sequence")} <= set(PUBLISHED)


@pytest.mark.parametrize("kind", Kind)
def test_the_usual_ones_are_comms_and_sound(kind: Kind) -> None:
    if f"comm {kind.value}s" in PUBLISHED:
        assert default_augment(kind) == AugmentConfig(**PUBLISHED[f"comm {kind.value}s"][1])
    assert default_augment(kind).problems("usual", kind) == []
    modality = ModalityConfig(kind)
    assert modality.view == default_augment(kind)
    assert modality.unique_view.operations == {k: v for k, v in default_augment(kind).operations.items() if k != "crop"}
    assert ModalityConfig(kind, unique=AugmentConfig()).unique_view == AugmentConfig()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["augment.mask=0.2"], "left.augment.mask does not fit a modality of kind image, which has crop, flip"),
        (["unique.shuffle=1"], "left.unique.shuffle does not fit"),
        (["train.flip=1.5"], "left.train.flip is 1.5: it must lie between 0 and 1"),
        (["augment.flip=-0.1"], "left.augment.flip is -0.1"),
        (["augment={choose: one, flip: 0.5}"], "with choose=one all operations are equally likely"),
        (["augment.hue=0.6"], "left.augment.hue is 0.6: it must lie between 0 and 0.5"),
        (["augment.brightness=2"], "left.augment.brightness is 2.0: it must lie between 0 and 1"),
        (["augment.noise_std=0"], "left.augment.noise_std is 0.0: it must be above 0"),
        (["augment.noise_std=.inf"], "left.augment.noise_std is inf"),
        (["augment.crop=[0.3]"], "left.augment.crop is [0.3]: it needs [least, most], and must start above 0"),
        (["augment.crop=[0,1]"], "and must start above 0, and end at 1 or below"),
        (["augment.crop=[0.5,0.3]"], "left.augment.crop is [0.5, 0.3]"),
        (["augment.crop=[0.5,.nan]"], "left.augment.crop is [0.5, nan]"),
        (["augment.crop=[0.5,1.2]"], "left.augment.crop is [0.5, 1.2]"),
        (["augment.ratio=[]"], "left.augment.ratio is []"),
        (["augment.sigma=[1,.inf]"], "left.augment.sigma is [1.0, inf]"),
        (
            ["augment.drop_share=[-1,1]"],
            "left.augment.drop_share is [-1.0, 1.0]: it needs [least, most], and must start 0",
        ),
        (["augment.drop_share=[]"], "left.augment.drop_share is []"),
        (["load_size=[7,4]"], "left.load_size is [7, 4]: it needs [height, width], at least size=[8, 4]"),
        (["load_size=[8,4,2]"], "left.load_size is [8, 4, 2]"),
        (
            ["augment.crp=1"],
            "left.augment.crp: unknown key (did you mean crop?); data.modalities.left.augment has choose",
        ),
        (["augment.crop=[0.3,1]", "augment.crp=1"], "left.augment.crp: unknown key (did you mean crop?)"),
        (["augment.choose=two"], "left.augment.choose=two"),
    ],
)
def test_mistakes_are_named(tokens: list[str], expected: str) -> None:
    (problem,) = problems(*tokens)
    assert expected in problem


def test_load_size_is_for_images() -> None:
    with pytest.raises(ConfigError, match=r"caption\.load_size is for images"):
        compose(["experiment=digits", "data.modalities.caption.load_size=[8,8]"])


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (
            Kind.vector,
            {"noise": 1, "features": [2, 5]},
            "motion.unique.features is [2, 5]: data.modalities.motion has 5",
        ),
        (Kind.vector, {"noise": 1, "features": []}, "features is []: different numbers from 0 on"),
        (Kind.vector, {"noise": 1, "features": [1, 1]}, "features is [1, 1]: different numbers from 0 on"),
        (Kind.vector, {"swap": 1, "features": [1]}, "is for drop and noise of vectors and sequences alone"),
        (Kind.vector, {"noise": 1, "silent": 0.1}, "silent is 0.1: it must be above 0, and is for sequences only"),
        (Kind.sequence, {"noise": 1, "silent": 0.0}, "silent is 0.0: it must be above 0"),
    ],
)
def test_places_that_are_none_are_named(kind: Kind, settings: dict[str, Any], expected: str) -> None:
    size = [5] if kind is Kind.vector else [9, 5]
    (problem,) = ModalityConfig(kind, size, unique=AugmentConfig(**settings)).problems("motion")
    assert expected in problem


def test_sequences_have_two_sizes() -> None:
    assert ModalityConfig(Kind.sequence, [50, 20]).problems("motion") == []
    (problem,) = ModalityConfig(Kind.sequence, [50]).problems("motion")
    assert "sequences need [time steps, features]" in problem
