"""Zero-shot classification: by hand as CLIP does it, ties, chance, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmpretrain.config.evaluation import EvaluationConfig, Metric, ZeroShotConfig
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import evaluate
from mmpretrain.evaluation.zero_shot import class_rows, zero_shot

NAMES, TEMPLATES = ["cat", "dog", "cow", "hen", "fox", "owl", "bat"], ["a {}.", "{} here", "no {} at all"]
SETTINGS = EvaluationConfig(zero_shot=ZeroShotConfig(classes=NAMES, templates=TEMPLATES))


def spoken(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """An embedding for each text, a function of it."""
    seeds = [sum(map(ord, text)) * len(text) for text in texts]
    return {"caption": np.stack([np.random.default_rng(seed).normal(size=12) for seed in seeds]).astype(np.float32)}


def samples(size: int = 60) -> Embeddings:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, len(NAMES), size)
    names = class_rows(spoken([t.replace("{}", n) for n in NAMES for t in TEMPLATES])["caption"], len(NAMES))
    image = (names[labels] + 0.3 * draw.normal(size=(size, 12))).astype(np.float32)
    return Embeddings(np.arange(size), {"image": image, "caption": image}, labels=labels)


def test_as_clip_does_it() -> None:
    made = samples()
    found = evaluate([Metric.zero_shot], lambda split: made, World.single(), SETTINGS, prompts=spoken)
    weights = []
    for name in NAMES:  # the loop of CLIP's notebook
        texts = torch.from_numpy(spoken([template.replace("{}", name) for template in TEMPLATES])["caption"])
        weights.append(F.normalize(F.normalize(texts, dim=1).mean(dim=0), dim=0))
    logits = 100 * F.normalize(torch.from_numpy(made.embeds["image"]), dim=1) @ torch.stack(weights, dim=1)
    labels = torch.from_numpy(made.labels)
    first = (logits.argmax(dim=1) == labels).float()
    five = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1).float()
    assert found["zero_shot/image->caption/accuracy"] == pytest.approx(first.mean().item())
    assert found["zero_shot/image->caption/accuracy@5"] == pytest.approx(five.mean().item())
    recalls = [first[labels == label].mean() for label in labels.unique()]
    assert found["zero_shot/image->caption/balanced_accuracy"] == pytest.approx(torch.stack(recalls).mean().item())
    assert found["zero_shot/image->caption/accuracy@5/chance"] == 5 / 7
    assert not any("caption->" in name for name in found)


def test_classes_that_look_alike_score_chance() -> None:
    found = zero_shot(samples(), {"caption": np.ones((7, 12)) / 12**0.5}, World.single())
    for name in ("accuracy", "accuracy@5", "balanced_accuracy"):
        score = found[f"image->caption/{name}"]
        assert isinstance(score, Measured) and score.value == pytest.approx(found[f"image->caption/{name}/chance"])


def test_up_to_five_classes_have_no_first_five() -> None:
    made = samples()
    assert made.labels is not None
    few = made.only(made.labels < 5)
    assert "image->caption/accuracy@5" not in zero_shot(few, {"caption": np.eye(5, 12)}, World.single())


def test_what_is_lacking_is_said() -> None:
    made = samples()
    with pytest.raises(ValueError, match="labels reach from 0 to 6, and 2 classes have names"):
        zero_shot(made, {"caption": np.eye(2, 12)}, World.single())
    with pytest.raises(ValueError, match=r"zero_shot needs embeddings of one width, these have 12 and 5"):
        zero_shot(made, {"caption": np.eye(7, 5)}, World.single())
    with pytest.raises(ValueError, match=r"needs names of the classes: set evaluation\.zero_shot\.classes"):
        evaluate([Metric.zero_shot], lambda split: made, World.single(), prompts=spoken)
    with pytest.raises(ValueError, match="a model with a text encoder"):
        evaluate([Metric.zero_shot], lambda split: made, World.single(), SETTINGS)
