"""What is shown is what training gets: the same order, tensors and augmentations."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.assembly.build import build_processor
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.step import Step
from mmpretrain.data.stream import Stream
from mmpretrain.preview.opening import open_config
from mmpretrain.preview.pictures import PicturePreview
from mmpretrain.preview.samples import first_samples
from tests.data.tones import tones_config, write_tones
from tests.preview.dataset import HOSTILE, config


def test_panels_are_those_of_the_first_batch_of_training(photos: Path) -> None:
    """Keys, labels and replaced samples as in the stream of a run; views as its augmenter makes them."""
    gone = [f"{part}.{name}=null" for part in ("data.modalities", "model.encoders") for name in ("caption", "track")]
    settings = config(photos, "method=factorcl", "seed=3", "data.global_batch=6", *gone)
    problems: list[str] = []
    processor = build_processor(settings)
    (batch,) = Stream(settings.data, "train", 3, 0, 1, processor).batches(0, 1)
    shown = first_samples(open_config(settings), "train", 6, ["day", "dusk"], problems)
    assert [sample.key for sample in shown] == list(batch.keys) and not problems
    assert [sample.position for sample in shown] == list(range(6))
    assert batch.labels is not None and shown[0].label == ["0 day", "1 dusk"][int(batch.labels[0])]
    augmenter, step = Augmenter(settings, processor), Step(0, 0.0, 1.0, 3)
    expected = {
        "the model gets": batch.inputs,
        "training input": augmenter.training_inputs(batch, step).inputs,
        "first view": augmenter.view(batch, "first", step),
        "second view": augmenter.view(batch, "second", step),
    }
    preview = PicturePreview("photo", settings.data.modalities["photo"], processor.modalities["photo"], None)
    for row, sample in enumerate(shown):
        panels = {panel.title: panel.content for panel in sample.panels["photo"]}
        assert set(panels) == {"decoded", *expected}
        for title, inputs in expected.items():
            assert panels[title] == preview.seen({"pixel_values": inputs["photo"]["pixel_values"][row]}, None)
    assert [panel.title for panel in shown[0].panels["gene"]][-1] == "unique view"  # FactorCL's second modality


def test_a_text_that_cannot_be_tokenized_is_shown_as_decoded_and_the_reason_is_said(photos: Path) -> None:
    opened = open_config(config(photos, "model.encoders.caption.tokenizer=/nowhere/at-all"))
    problems = list(opened.problems)
    shown = first_samples(opened, "train", 12, None, problems)
    assert len(problems) == 1 and "model.encoders.caption.tokenizer" in problems[0]
    titles = {name: [panel.title for panel in panels] for name, panels in shown[0].panels.items()}
    assert titles["caption"] == ["decoded"] and titles["gene"][:2] == ["decoded", "the model gets"]
    contents = [str(panel.content) for sample in shown for panels in sample.panels.values() for panel in panels]
    assert not any(HOSTILE in content for content in contents) and any("&lt;script&gt;" in text for text in contents)


def test_an_augmentation_that_cannot_be_done_is_a_problem_of_its_modality_alone(photos: Path) -> None:
    """gpt2-like tokenizers have nothing to mask with."""
    opened = open_config(config(photos))
    problems: list[str] = []
    opened.processor.tokenizers["caption"].unk_token = None  # type: ignore[union-attr]
    shown = first_samples(opened, "train", 2, None, problems)
    assert len(problems) == 1 and "data.modalities.caption" in problems[0]
    assert "second view" in [panel.title for panel in shown[0].panels["photo"]]


def test_data_that_training_could_not_read_at_all_is_a_problem(photos: Path) -> None:
    opened = open_config(config(photos, "data.modalities.gene.size=[5]"))
    problems: list[str] = []
    assert first_samples(opened, "train", 4, None, problems) == []
    assert "gene.npy: has shape [4]" in problems[0]


def test_sounds_are_shown_with_the_views_of_their_waveforms(tmp_path: Path) -> None:
    write_tones(tmp_path, 8)
    problems: list[str] = []
    shown = first_samples(open_config(tones_config(tmp_path, "sound", "caption")), "train", 4, None, problems)
    assert not problems
    titles = ["decoded", "the model gets", "first view", "second view"]
    for sample in shown:
        panels = {panel.title: panel.content for panel in sample.panels["sound"]}
        assert list(panels) == titles and "<audio" in panels["decoded"]
        assert len({panels[title] for title in titles}) == len(titles)
