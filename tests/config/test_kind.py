"""Every kind and every architecture of this project has one row, and what the rows name exists."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmpretrain.config.architectures import ARCHITECTURES
from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.data import ModalityConfig, Padding
from mmpretrain.config.implementation import implementation
from mmpretrain.config.kind import KINDS, Kind
from mmpretrain.data.decode import DECODERS
from mmpretrain.models.encoders_mmpretrain import OWN
from mmpretrain.models.inputs_mmpretrain import KINDS as INPUTS
from tests.data.small_dataset import npy
from tests.data.tones import encoded as encoded_sound
from tests.data.tones import tone


def encoded(kind: Kind) -> bytes:
    """A sample of the kind as a member holds it."""
    if kind is Kind.image:
        file = io.BytesIO()
        Image.new("RGB", (3, 2)).save(file, "PNG")
        return file.getvalue()
    if kind is Kind.audio:
        return encoded_sound(tone(1))
    return b"a text" if kind is Kind.text else npy(np.ones((2, 3) if kind is Kind.sequence else 3, np.float32))


@pytest.mark.parametrize("kind", Kind)
def test_what_a_row_names_exists(kind: Kind) -> None:
    row = kind.row
    assert implementation(row.decoder)(encoded(kind)) is not None
    assert all(kind in DECODERS[suffix].kinds for suffix in row.suffixes)
    assert callable(implementation(row.augmentation).__call__)
    assert callable(implementation(row.preview).seen)
    assert set(AugmentConfig(**row.default_views).operations) <= set(row.operations)
    assert all(hasattr(ModalityConfig(kind), key) for key in (*row.described_by, *row.transformers_sizes.values()))
    # What ships has no access to the rows, and knows the same kinds.
    assert set(row.statistics) >= set(INPUTS[kind.value].statistics)


def test_every_kind_has_a_row_and_ships() -> None:
    assert set(KINDS) == set(Kind) and set(INPUTS) == {kind.value for kind in Kind}


def test_every_architecture_has_a_row_and_ships() -> None:
    assert set(ARCHITECTURES) == set(OWN)
    for row in ARCHITECTURES.values():
        assert row.pools and not {str(size) for size in row.sizes} & {*row.required, *row.optional}


def test_an_implementation_that_is_not_there() -> None:
    with pytest.raises(AttributeError):
        implementation("mmpretrain.config.kind.Nothing")
    with pytest.raises(ModuleNotFoundError):
        implementation("mmpretrain.config.nothing.Nothing")


@pytest.mark.parametrize("kind", Kind)
def test_only_what_is_padded_here_has_a_choice_of_padding(kind: Kind) -> None:
    said = (
        f"data.modalities.x.padding is for texts and sequences, and data.modalities.x is a {kind.value}: leave it out"
    )
    size = [1] * len(kind.row.size)
    found = ModalityConfig(kind, size, padding=Padding.full).problems("x")
    assert found == ([] if kind in (Kind.text, Kind.sequence) else [said])
