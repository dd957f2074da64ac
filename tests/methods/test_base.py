"""The contract between methods and the engine."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmpretrain.config.methods.names import METHODS, MixLevel
from mmpretrain.data.step import Step
from mmpretrain.methods import method_class
from mmpretrain.methods.base import Losses, Method
from tests.methods.toys import make_batch, make_config, make_method, make_step


def test_every_configured_method_has_a_class() -> None:
    assert all(settings().name == name for name, settings in METHODS.items())
    assert all(issubclass(method_class(name), Method) for name in METHODS)


@pytest.mark.processes
def test_the_package_and_the_schemas_load_no_torch() -> None:
    code = "import sys, mmpretrain.methods, mmpretrain.config.root; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_total_is_the_weighted_sum() -> None:
    terms = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(3.0, requires_grad=True)}
    total = Losses(terms, {"b": 0.1}).total
    total.backward()
    assert total.item() == pytest.approx(2.3)
    assert terms["a"].grad == 1 and terms["b"].grad == pytest.approx(0.1)


def test_generators_depend_on_seed_position_and_tags_only() -> None:
    def draw(step: Step, position: int, *tags: str | int) -> list[float]:
        return torch.rand(2, generator=step.generator(position, *tags)).tolist()

    first, later = Step(0, 0.0, 1.0, seed=5), Step(9, 3.0, 7.0, seed=5)
    assert draw(first, 4, "mix", "left") == draw(later, 4, "mix", "left")
    others = [draw(first, 5, "mix", "left"), draw(first, 4, "mix", "right"), draw(first, 4, "mixleft")]
    others += [draw(Step(0, 0.0, 1.0, seed=6), 4, "mix", "left"), draw(first, 4, "mix", "left", 0)]
    assert draw(first, 4, "mix", "left") not in others and len(set(map(tuple, others))) == len(others)


def test_sub_seeds_never_change_between_versions() -> None:
    """Runs resume with them: another value would change their mixing and dropout silently."""
    assert Step(0, 0.0, 1.0, seed=0).sub_seed(128, "mrna", "mix") == 2938725776897809629


def test_micro_batches_are_runs_of_rows_and_their_features_go_together_again() -> None:
    config = make_config("m3col", mix_level=MixLevel.input, mix_group=4)
    method = make_method(config)
    batch = method.prepare(make_batch(config), make_step())
    parts = batch.split(4)
    assert [part.positions.tolist() for part in parts] == [list(range(i, i + 4)) for i in range(0, 16, 4)]
    assert all(part.labels is not None and len(part.labels) == 4 for part in parts)
    assert all(len(part.views["mixed"]["mrna"]["values"]) == 4 for part in parts)
    assert not any(part.mixing for part in parts)  # it counts rows of the whole batch
    whole = method.encode(method.model, batch)
    features = [method.encode(method.model, part) for part in parts]
    joined = features[0].with_tensors([torch.cat(c) for c in zip(*(f.tensors for f in features), strict=True)], batch)
    for ours, right in zip(joined.tensors, whole.tensors, strict=True):
        torch.testing.assert_close(ours, right)
    assert joined.embeds.keys() == whole.embeds.keys() and joined.views.keys() == whole.views.keys()
    assert joined.logits is not None and joined.mixing is batch.mixing and joined.labels is batch.labels


@pytest.mark.parametrize("name", ["clip", "m3col"])
def test_embeddings_of_different_widths_are_refused(name: str) -> None:
    config = make_config(name)
    method = make_method(config)
    method.model.embed_sizes["mrna"] = 5
    with pytest.raises(ValueError, match=r"mrna 5, methylation 4.*model\.embed_dim"):
        type(method)(config, method.model)
