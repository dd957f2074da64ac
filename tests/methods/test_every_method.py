"""What every method must do: learn a batch by heart, go the same way on two ranks, resume bit for bit, and ship what it
trained. A method that is registered is tested here."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.utils import ModelOutput

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.methods.cmcr import SHARED
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.model import ConnectedSpace
from mmpretrain.engine.engine import mean_over_ranks
from mmpretrain.hub.export import export_release
from mmpretrain.methods.base import Features
from mmpretrain.models.processing_mmpretrain import MMPretrainInputs
from tests.engine import runs
from tests.hub.test_card import facts
from tests.models.small import fresh_interpreter, small_samples
from tests.rank_pool import Ranks

# Which every method can take that has encoders.
TWO_MODALITIES = ("data.modalities.left=null", "model.encoders.left=null")


@dataclass(frozen=True)
class Small:
    """How a method runs on the tiny model. tokens: its settings. falls: by how much 40 steps on one batch lower its
    loss, at least. data: its modalities."""

    tokens: tuple[str, ...] = ()
    falls: float = 1.0
    data: tuple[str, ...] = TWO_MODALITIES


EMBEDDINGS = (
    "data=connection",
    *(f"data.modalities.{name}.size=[{runs.FEATURES}]" for name in runs.EMBEDDINGS),
    *(f"model.encoders.{name}=null" for name in runs.MODALITIES),
    "evaluation.final=[retrieval]",
)
FUSION = ("model.embed_dim=null", "model.fusion.width=16", "model.fusion.heads=2")
HEADS = ("method.hidden=32", "method.width=16")
# Batch norm over 16 nearly equal embeddings magnifies rounding, the more so the lower the temperature.
WARM = "method.temperature=0.5"
CODES = ("model.components.common=3", "model.components.individual=4")
SMALL = {
    "clip": Small(falls=2.5),  # measured: from 3.1 to 0.2
    "cmcr": Small((WARM, "method.partner_temperature=0.5"), 2.5, EMBEDDINGS),  # from 5.7 to 2.7
    "comm": Small((*FUSION, "method.head_hidden=32", "method.head_width=16", WARM), falls=4.5),  # from 8.4 to 3.2
    "comm_supervised": Small((*FUSION, WARM)),
    "cross_self": Small((*HEADS, WARM), falls=3.0),  # from 6.9 to 3.4
    "factorcl": Small(("method.critic_hidden=32",), falls=2.0),  # from 0.0 to -3.4
    "m3col": Small(falls=6.5),  # from 7.9 to 0.5
    "mucmm": Small(
        ("model.components.common=3", "model.components.individual=4", "method.start=orthogonal"), falls=1.3
    ),
    "siglip": Small(falls=6.0),  # from 8.0 to 1.0; its bias alone brings it to 4
    "supcon": Small(HEADS, falls=11.0),  # from 12.9 to 1.3
}


def tokens_of(method: str, *further: str) -> list[str]:
    """Of a small run."""
    small = SMALL.get(method, Small())
    return [f"method={method}", *small.data, *small.tokens, *further]


def on_one_batch(tokens: list[str], steps: int) -> list[float]:
    """The losses, averaged over the ranks, of ``steps`` steps of the engine on the same batch."""
    config = runs.tiny_config(*tokens, "optim.schedule=constant", "optim.warmup_samples=0", "optim.lr=3e-3")
    engine = runs.start(config)
    world = engine.world
    batch = runs.make_batch(0, world.rank, world.size, repeat=False, modalities=config.data.modalities)
    reports = (engine.step(batch, runs.step_of(index, config)) for index in range(steps))
    return [mean_over_ranks({"loss": report.losses["loss"]}, world)["loss"] for report in reports]


@pytest.mark.parametrize("method", METHODS)
def test_learns_a_batch_by_heart(ranks: Ranks, method: str) -> None:
    losses = ranks(1, on_one_batch, tokens_of(method, "engine=zero0"), 40)[0]
    assert losses[-1] < losses[0] - SMALL.get(method, Small()).falls


def terms_on_one_batch(tokens: list[str], steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """The terms of the first and of the last of ``steps`` steps on the same batch, on one process."""
    config = runs.tiny_config(*tokens, "optim.schedule=constant", "optim.warmup_samples=0", "optim.lr=3e-3")
    engine = runs.start(config)
    batch = runs.make_batch(0, 0, 1, repeat=False, modalities=config.data.modalities)
    reports = [engine.step(batch, runs.step_of(index, config)).losses for index in range(steps)]
    first, last = ({name: value.item() for name, value in report.items()} for report in (reports[0], reports[-1]))
    return first, last


def test_factorcl_learns_each_of_its_lower_bounds(ranks: Ranks) -> None:
    """Its upper bounds have no floor, so that a falling total alone says little. Critics make the way chaotic: where
    rounding differs (CPUs have different kernels) a bound may learn later, by 0.2 to 0.3 after 40 steps."""
    first, last = ranks(1, terms_on_one_batch, tokens_of("factorcl", "engine=zero0"), 80)[0]
    for name in ("shared", "task_right", "task_caption", "unique_conditional"):
        assert last[f"loss/{name}"] < first[f"loss/{name}"] - 0.3, name


# Adam divides gradients by their size: without a large eps, those next to 0 would be steps made of rounding. With it,
# and without clipping, a gradient that is off by a factor moves the loss otherwise, by far more than the tolerance.
PLAIN_STEPS = ("optim.eps=0.1", "optim.clip=null")
MOVED = 0.005


def check_two_ranks(ranks: Ranks, method: str, stage: int) -> None:
    """On changing batches, clipped as usual, and on one batch, whose loss must move."""
    for train, settings in ((runs.train, PLAIN_STEPS[:1]), (on_one_batch, PLAIN_STEPS)):
        alone = ranks(1, train, tokens_of(method, "engine=zero0", *settings), 5)[0]
        assert alone[0] != alone[-1] and (train is runs.train or abs(alone[0] - alone[-1]) > MOVED)
        for curve in ranks(2, train, tokens_of(method, f"engine=zero{stage}", *settings), 5):
            assert max(abs(a - b) for a, b in zip(curve, alone, strict=True)) <= 1e-5


def check_resuming(ranks: Ranks, method: str, stage: int, folder: Path) -> None:
    """A run that was stopped halfway ends with the weights and losses of one that ran through."""
    results = ranks(2, runs.train_and_resume, tokens_of(method, f"engine=zero{stage}"), 4, str(folder))
    straight, resumed, losses, losses_again = results[0]
    assert straight and straight == resumed and losses == losses_again


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_go_the_same_way_as_one(ranks: Ranks, method: str) -> None:
    check_two_ranks(ranks, method, 3)


@pytest.mark.parametrize("method", METHODS)
def test_resuming_is_bit_equal(ranks: Ranks, method: str, tmp_path: Path) -> None:
    check_resuming(ranks, method, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_so_it_is_at_the_other_stage(ranks: Ranks, method: str, tmp_path: Path) -> None:
    check_two_ranks(ranks, method, 1)
    check_resuming(ranks, method, 3, tmp_path)


def flat(output: ModelOutput) -> dict[str, Tensor]:
    """Every tensor that a model returned, by its name; without similarities, which only a release has."""
    found = {}
    for key, value in output.items():
        if key == "logits_per":
            continue
        members = value if isinstance(value, dict) else {"": value}
        found.update({f"{key} {name}": tensor for name, tensor in members.items()})
    return found


COMPARE = f"""
import pickle
from pathlib import Path
import torch
from transformers import AutoModel, AutoProcessor
torch.set_num_threads(1)  # as in the ranks: sums in another order would differ in their last digits
{inspect.getsource(flat).replace("output: ModelOutput", "output").replace("-> dict[str, Tensor]", "")}
for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    samples, expected, loss = pickle.loads(folder.with_suffix(".pkl").read_bytes())
    model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), (folder.name, info)
    inputs = AutoProcessor.from_pretrained(folder, trust_remote_code=True)(**samples)
    with torch.no_grad():
        found = flat(model(**inputs))
        assert loss is None or torch.allclose(model(**inputs, return_loss=True).loss, loss, rtol=1e-5), folder.name
    assert found.keys() == expected.keys(), (folder.name, found.keys())
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), (folder.name, name)
    print(folder.name, *sorted(found), sep=",")
"""


def release(tokens: list[str], folder: Path) -> None:
    """Train for two steps, export to ``folder``, and leave samples and what the model makes of them beside it."""
    config = runs.tiny_config(*tokens)
    engine = runs.start(config)
    for index in range(2):
        batch = runs.make_batch(index, 0, 1, modalities=config.data.modalities)
        engine.step(batch, runs.step_of(index, config))
    every = [(batch, torch.ones(len(batch.sample_ids), dtype=torch.bool)) for batch in runs.split(config, engine.world)]
    engine.method.conclude(engine.deepspeed, every, engine.world)
    model, processor, state = engine.method.model, build_processor(config), engine.state_dict()
    assert state is not None
    shipped = engine.method.ship(state, processor)
    export_release(shipped.model, shipped.state, shipped.processor, folder, facts(method=config.method.name))
    embedded = np.random.default_rng(0).normal(size=(2, runs.FEATURES))
    raw: dict[str, Any] = {**small_samples(), **{space.value: embedded for space in ConnectedSpace}}
    samples = {name: raw.get(name, raw["picture"]) for name in shipped.processor.modalities}
    inputs = shipped.processor(**samples)
    if not config.parts.encoders:  # what trained takes a space's embeddings by the names of the pairs
        inputs = MMPretrainInputs({SHARED[ConnectedSpace(name)]: tensors for name, tensors in inputs.items()})
    with torch.no_grad():
        output = model.eval()(**inputs)
    found, loss = flat(output), None
    if config.method.name in ("clip", "siglip"):  # whose objective is a function of the embeddings that ship
        rows = torch.arange(2)
        features = Features(output.embeds, None, rows, rows)
        with torch.no_grad():
            loss = engine.method.objective(features, runs.step_of(0, config), engine.world).total
    if not config.parts.encoders:
        found = {f"embeds {space}": found[f"embeds {SHARED[space]}"] for space in ConnectedSpace}
    folder.with_suffix(".pkl").write_bytes(pickle.dumps((samples, found, loss)))


def test_releases_open_where_this_package_is_absent_and_say_the_same(ranks: Ranks, tmp_path: Path) -> None:
    folder = tmp_path / "releases"
    # What connects spaces has none of their releases here and takes embeddings: see tests/methods/test_cmcr_release.py.
    for method in METHODS:
        ranks(1, release, tokens_of(method, "engine=zero0"), folder / method)
    lines = fresh_interpreter(COMPARE, tmp_path, str(folder), ours=False).splitlines()
    opened = {line.split(",")[0]: line.split(",")[1:] for line in lines}
    assert set(opened) == set(METHODS)
    assert all(any(name.startswith("embeds") for name in names) for names in opened.values())
