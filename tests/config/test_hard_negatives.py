"""Hard negatives and the margin of likely false negatives: what a config may ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig, NegativesConfig
from mmpretrain.config.methods.base import Exchange
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.objective import HardNegatives, ObjectiveConfig

OWN = ObjectiveConfig(hard_negatives=HardNegatives.own)
MARGIN = ObjectiveConfig(false_negative_margin=0.1)


def data(negatives: NegativesConfig | None = None, optional: bool = False) -> DataConfig:
    text = ModalityConfig(Kind.text, optional=optional, negatives=negatives)
    return DataConfig("a", "a", modalities={"image": ModalityConfig(Kind.image, [8, 8]), "caption": text})


def test_methods_say_what_they_have_a_use_for() -> None:
    given, plain = data(NegativesConfig()), ObjectiveConfig()
    taking = {name for name, method in METHODS.items() if not method().objective_problems(plain, given)}
    assert taking == {"clip", "siglip"}
    comparing = {name for name, method in METHODS.items() if not method().objective_problems(MARGIN, data())}
    assert comparing == {"clip", "cross_self"}


def test_a_choice_without_effect_is_refused() -> None:
    clip = METHODS["clip"]()
    (problem,) = clip.objective_problems(OWN, data())
    assert "no modality has hard negatives" in problem
    assert not clip.objective_problems(OWN, data(NegativesConfig()))


@pytest.mark.parametrize("margin", [-2.0, 2.0, float("nan")])
def test_a_margin_that_no_cosines_have_is_refused(margin: float) -> None:
    (problem,) = ObjectiveConfig(false_negative_margin=margin).problems()
    assert "must lie between -2 and 2" in problem


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (ModalityConfig(Kind.image, [8, 8], negatives=NegativesConfig()), "negatives is for texts"),
        (ModalityConfig(Kind.text, negatives=NegativesConfig(count=0)), r"negatives.count is 0: it must be 1 to 64"),
        (ModalityConfig(Kind.text, negatives=NegativesConfig(member=["json", "json"])), "names json twice"),
    ],
)
def test_entries_that_say_nothing_are_refused(entry: ModalityConfig, problem: str) -> None:
    (found,) = entry.problems("caption")
    assert problem in found


def test_they_count_in_what_is_sent() -> None:
    widths, plain = {"image": 8, "caption": 8}, Exchange(16, 2)
    three = data(NegativesConfig(count=3))
    assert plain.with_hard_negatives(widths, three, ObjectiveConfig()) == Exchange(16 + 24, 5)
    assert plain.with_hard_negatives(widths, three, OWN) == plain
    assert plain.with_hard_negatives(widths, data(), ObjectiveConfig()) == plain
    missing = replace(three, modalities=three.modalities | {"sound": ModalityConfig(Kind.audio, optional=True)})
    assert plain.with_hard_negatives(widths | {"sound": 8}, missing, ObjectiveConfig()).width == 16 + 48
