"""The page as HTML."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config.data import AugmentConfig, Kind, ModalityConfig
from mmpretrain.data.index import ShardError
from mmpretrain.preview.page import bytes_text, heights, number_text, page, settings, share_text
from mmpretrain.preview.preview import composed, make_preview
from tests.data.small_dataset import Sample, write_split
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


def test_a_folder_of_nothing_but_tars_is_for_training(photos: Path, tmp_path: Path) -> None:
    """As a run takes it; what was found in it is noted."""
    write_split(tmp_path / "flat", (3, 3))
    folder = str(tmp_path / "flat")
    notes: list[str] = []
    preview = make_preview(folder, composed(folder, [], None, tmp_path, notes), None, 2, 1)
    assert preview.config.data.path == folder and list(preview.config.data.modalities) == [
        "caption",
        "picture",
        "values",
    ]
    assert list(preview.splits) == ["train"] and preview.split == "train" and len(preview.samples) == 2
    assert "data: caption" in notes[0] and not preview.problems
    with pytest.raises(ShardError, match="has no split 'nope': there are train, test"):
        make_preview(str(photos), config(photos), "nope", 1, 1)


def test_a_config_of_other_data_is_said_with_what_there_is(photos: Path) -> None:
    """Not once for every sample alone."""
    tokens = ("data.modalities.photo=null", "model.encoders.photo=null", "model.encoders.extra.architecture=identity")
    settings = config(photos, *tokens, "data.modalities.extra.kind=vector", "data.modalities.extra.size=[2]")
    preview = make_preview(str(photos), settings, None, 4, None)
    assert "holds 'extra'; they have caption.txt, gene.npy" in preview.problems[0]
    assert "None can be shown" in page(preview) and not preview.splits


def test_every_caption_is_shown_and_counted(photos: Path, tmp_path: Path) -> None:
    """The model gets the one that the position draws."""
    several = ('["a bold seven", "a light three"]', '["one"]')

    def with_captions(number: int, sample: Sample) -> Sample:
        kept = {name: content for name, content in sample.items() if name != "caption.txt"}
        return kept | {"caption.json": several[number % 2]}

    folder = tmp_path / "several"
    write_split(folder / "train", (8,), with_captions)
    notes: list[str] = []
    preview = make_preview(str(folder), composed(str(folder), [], None, tmp_path, notes), None, 8, None)
    assert preview.numbers()["splits"]["train"]["modalities"]["caption"]["characters"]["samples"] == 12
    panels = [panel for sample in preview.samples for panel in sample.panels["caption"] if panel.title == "decoded"]
    assert sum("2 captions, of which one is drawn: 12, 13 characters" in panel.content for panel in panels) == 4


def test_settings_are_written_as_in_the_config() -> None:
    modality = ModalityConfig(Kind.image, [4, 6], channels=1, train=AugmentConfig(flip=0.5))
    assert settings(modality) == "kind: image, size: [4, 6], channels: 1, train: {flip: 0.5}"


def test_numbers_are_written_for_people() -> None:
    assert [bytes_text(n) for n in (0, 999, 1234567, 5e13)] == ["0 B", "999 B", "1.23 MB", "50 TB"]
    assert [number_text(n) for n in (1234567, 0.123456, -3.0)] == ["1,234,567", "0.1235", "-3"]
    assert [share_text(*pair) for pair in ((1, 2), (1, 100_000), (0, 5), (0, 0))] == ["50.0%", "< 0.1%", "0.0%", "0.0%"]
    assert heights([0, 1, 1000]) == [0.0, 2.0, 100.0] and heights([]) == []
