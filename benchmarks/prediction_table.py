"""The table of docs/prediction.md: what two CLIP models will need on 8, 64 and 512 nodes of 8 GPUs.

python -m benchmarks.prediction_table        # prints it; nothing is allocated, no GPU is needed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.compose import compose
from mmpretrain.config.model import EncoderConfig
from mmpretrain.training.prediction.fit import GIB
from mmpretrain.training.prediction.predict import Prediction, predict

GPUS, NODES, WRITTEN = 8, (8, 64, 512), 2e9  # per node; bytes that a node writes per second
BATCHES = {8: 32_768, 64: 65_536, 512: 131_072}
_WORDS = {"vocab_size": 49_408, "max_position_embeddings": 77}  # of CLIP's tokenizer


@dataclass(frozen=True)
class Pair:
    """An image encoder and a text encoder of CLIP: keywords of ``vit`` and of ``clip_text_model``, and their width."""

    name: str
    image: dict[str, int]
    text: dict[str, int]
    width: int


_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
B_16 = Pair(
    "ViT-B/16",
    {**dict(zip(_KEYS, (768, 12, 12, 3072), strict=True)), "patch_size": 16},
    dict(zip(_KEYS, (512, 12, 8, 2048), strict=True)),
    512,
)
L_14 = Pair(
    "ViT-L/14",
    {**dict(zip(_KEYS, (1024, 24, 16, 4096), strict=True)), "patch_size": 14},
    dict(zip(_KEYS, (768, 12, 12, 3072), strict=True)),
    768,
)


def predicted(pair: Pair, nodes: int, *further: str) -> Prediction:
    """In bfloat16 at ZeRO 1, texts of 77 tokens; further: more tokens of the config."""
    tokens = [
        "method=clip", "data=digits", "model=digits", "data.modalities.left=null", "model.encoders.left=null",
        "data.modalities.right.size=[224,224]", "data.modalities.right.channels=3",
        "data.modalities.caption.max_length=77", f"data.global_batch={BATCHES[nodes]}",
        "engine=zero1", "engine.precision=bfloat16", f"model.embed_dim={pair.width}",
    ]  # fmt: skip
    config = compose([*tokens, *further])
    config.model.encoders["right"].config = dict(pair.image)
    text = EncoderConfig(architecture="clip_text_model", tokenizer="bytes", config=_WORDS | pair.text)
    config.model.encoders["caption"] = text
    sources = EncoderSources(config)
    checked = check_model(config, sources)
    assert checked.model is not None, checked.problems
    return predict(config, sources, checked.model, nodes * GPUS, gpu=True)


def row(pair: Pair, nodes: int, prediction: Prediction) -> str:
    """One line of the table."""
    memory, wire, saved = prediction.memory, prediction.wire, prediction.checkpoint
    assert memory is not None and wire is not None
    held = [memory.weights, memory.masters + memory.optimizer, memory.gradients, memory.activations, memory.loss]
    sent = wire.sent - (gradients := _sent(prediction, wire.gradients))
    seconds = (saved.first + (GPUS - 1) * saved.other) / WRITTEN
    cells = [
        f"{pair.name}, {prediction.parameters / 1e6:.0f} M", f"{nodes} x {GPUS}", f"{BATCHES[nodes]:,}",
        *(f"{value / GIB:.2f}" for value in held), f"**{memory.total / GIB:.1f}**",
        f"{gradients / GIB:.2f}", f"{sent / GIB:.2f}", f"{saved.files / GIB:.2f}", f"{seconds:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _sent(prediction: Prediction, payloads: dict[str, int]) -> int:
    from mmpretrain.training.prediction.wire import Wire

    return Wire(payloads, {}, prediction.ranks).sent


def table() -> Iterator[str]:
    """The lines, heading first."""
    heads = [
        "model", "nodes x GPUs", "batch", "weights", "optimizer", "gradients", "activations", "loss", "most at once",
        "sent: gradients", "sent: losses", "checkpoint", "seconds to write",
    ]  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for pair in (B_16, L_14):
        for nodes in NODES:
            yield row(pair, nodes, predicted(pair, nodes))


if __name__ == "__main__":
    print("\n".join(table()))
