"""Labels of several classes and measured values on their way from shards to evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.data import LabelConfig, LabelForm
from mmpretrain.data.decode import SampleError
from mmpretrain.data.members import Holders
from mmpretrain.data.samples import label_of
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.evaluation.linear_probe import linear_probe
from mmpretrain.models.modeling_mmpretrain import MMPretrainOutput
from tests.data.small_dataset import Sample, stream, write_split

FORMS = {
    LabelForm.several: (3, lambda n: str([c for c in range(3) if (n >> c) & 1])),
    LabelForm.value: (None, lambda n: str(n / 4)),
}


class Values(nn.Module):
    """Its embedding is the vector of the sample."""

    def forward(self, **inputs: dict[str, torch.Tensor]) -> MMPretrainOutput:
        """[b, 3]."""
        return MMPretrainOutput(embeds={"values": inputs["values"]["values"]})


def embedded(folder: Path, form: LabelForm) -> Embeddings:
    classes, label = FORMS[form]

    def change(number: int, sample: Sample) -> Sample:
        return {**sample, "label.cls": label(number)}

    write_split(folder / "train", (10, 10), change)
    batches = stream(folder, classes=classes, label=LabelConfig(form=form)).split_batches(4)
    return embed_split(Values(), batches, World.single(), torch.device("cpu"))


@pytest.mark.parametrize("form", FORMS)
def test_labels_reach_the_probe_in_their_form(tmp_path: Path, form: LabelForm) -> None:
    made = embedded(tmp_path, form)
    assert made.labels is not None
    if form is LabelForm.several:
        assert made.labels.dtype == np.int64
        assert made.labels.tolist() == [[(n >> c) & 1 for c in range(3)] for n in range(20)]
        assert "values/average_precision" in linear_probe(made, made)
    else:
        assert made.labels.dtype == np.float32 and made.labels.tolist() == [n / 4 for n in range(20)]
        assert linear_probe(made, made)["values/r2"] > 0.0


def test_several_measured_numbers_reach_the_probe(tmp_path: Path) -> None:
    def change(number: int, sample: Sample) -> Sample:
        return {**sample, "label.cls": f"[{number}, {number / 4}]"}

    write_split(tmp_path / "train", (10, 10), change)
    label = LabelConfig(form=LabelForm.value, numbers=2)
    batches = stream(tmp_path, classes=None, label=label).split_batches(4)
    made = embed_split(Values(), batches, World.single(), torch.device("cpu"))
    assert made.labels is not None and made.labels.tolist() == [[n, n / 4] for n in range(20)]
    assert {"values/mse", "values/mae", "values/r2"} < set(linear_probe(made, made))
    holders = Holders(("label.cls",))
    with pytest.raises(SampleError, match=r"has 2 numbers, and data\.label\.numbers is 4"):
        label_of({"label.cls": b"[1, 2]"}, holders, 0, LabelForm.value, 4)


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (["data.label.numbers=2"], "data.label.numbers is 2 and data.label.form is one_class"),
        (["data.label.numbers=0"], "data.label.numbers is 0: it must be at least 1"),
        (["method=supcon", "data.label.form=several"], "method=supcon learns from one class per sample"),
        (["data.label.form=value"], "data.label.form is value and data.classes is 10: set data.classes=null"),
        (["data.label.form=several", "data.classes=null"], "set data.classes to the number of classes"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(tokens: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=digits", "evaluation.final=[retrieval]", *tokens])
    assert any(problem in found for found in caught.value.problems)
