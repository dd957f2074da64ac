"""The page as HTML."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config.data import AugmentConfig, Kind, ModalityConfig
from mmpretrain.data.index import ShardError
from mmpretrain.preview.page import bytes_text, heights, number_text, page, settings, share_text
from mmpretrain.preview.preview import composed, make_preview
from tests.preview.dataset import HOSTILE, config


def test_nothing_of_the_data_becomes_html_and_nothing_is_asked_for(photos: Path) -> None:
    preview = make_preview(str(photos), config(photos), None, 12, None)
    text = page(preview)
    assert "<script" not in text and HOSTILE not in text and "key <i>" not in text
    assert "&lt;script&gt;" in text and "key &lt;i&gt;" in text and "&lt;b&gt;dusk" in text
    assert "Content-Security-Policy" in text and "default-src &#39;none&#39;" not in text
    assert "http://" not in text and "https://" not in text
    numbers = preview.numbers()
    assert numbers["splits"]["train"]["unusable"] == 2 and numbers["splits"]["test"]["unusable"] == 0
    assert numbers["splits"]["train"]["modalities"]["caption"]["tokens"]["above"] == 2
    assert list(numbers["splits"]["train"]["labels"]) == ["0 day & night", "1 <b>dusk"]


def test_one_folder_of_tars_is_looked_at_like_the_split_that_it_is(photos: Path) -> None:
    folder = str(photos / "test")
    settings = composed(folder, ["data=photos"], None, photos.parent / "configs")
    assert settings.data.path == str(photos)
    preview = make_preview(folder, settings, None, 2, 1)
    assert list(preview.splits) == ["test"] and preview.split == "test" and len(preview.samples) == 2
    with pytest.raises(ShardError, match="has no split 'nope': there are train, test"):
        make_preview(str(photos), config(photos), "nope", 1, 1)


def test_a_config_of_other_data_is_said_with_what_there_is(photos: Path) -> None:
    """Not once for every sample alone."""
    settings = config(
        photos,
        "data.modalities.photo=null",
        "data.modalities.extra={kind: vector, size: [2]}",
        "model.encoders.photo=null",
        "model.encoders.extra={architecture: identity}",
    )
    preview = make_preview(str(photos), settings, None, 4, None)
    assert "data.modalities names caption, track, gene, extra, and the members are caption.txt," in preview.problems[0]
    assert "None can be shown" in page(preview) and preview.splits["train"].dropped


def test_settings_are_written_as_in_the_config() -> None:
    modality = ModalityConfig(Kind.image, [4, 6], channels=1, train=AugmentConfig(flip=0.5))
    assert settings(modality) == "kind: image, size: [4, 6], channels: 1, train: {flip: 0.5}"


def test_numbers_are_written_for_people() -> None:
    assert [bytes_text(n) for n in (0, 999, 1234567, 5e13)] == ["0 B", "999 B", "1.23 MB", "50 TB"]
    assert [number_text(n) for n in (1234567, 0.123456, -3.0)] == ["1,234,567", "0.1235", "-3"]
    assert [share_text(*pair) for pair in ((1, 2), (1, 100_000), (0, 5), (0, 0))] == ["50.0%", "< 0.1%", "0.0%", "0.0%"]
    assert heights([0, 1, 1000]) == [0.0, 2.0, 100.0] and heights([]) == []
