"""A training step of a small CLIP on captions of 10 to 20 tokens, padded to 77 and to the longest of the batch.

    python -m benchmarks.padding [--quick] [--size 64]

One process, one thread, one engine: steps on the two batches, which hold the same samples, take turns. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np
import torch

from benchmarks.measure import finish, show
from mmpretrain.assembly.build import build_processor
from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.engine.engine import Engine
from mmpretrain.methods.build import build_method
from tests.small_tokenizer import small_tokenizer

LAYERS: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
}
ENDS = {"bos_token_id": 0, "eos_token_id": 1}  # CLIP's own are beyond a small vocabulary, and are not used
LENGTHS = (8, 18)  # words of a caption, to which the tokenizer adds two tokens
BATCH, LONGEST, PATCH = 64, 77, 8
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


def config_of(size: int) -> Config:
    """CLIP of a ViT on images of ``size`` pixels and CLIP's text encoder, 6 layers of width 192 each."""
    modalities = {
        "image": ModalityConfig(Kind.image, [size, size]),
        "caption": ModalityConfig(Kind.text, max_length=LONGEST),
    }
    encoders = {
        "image": EncoderConfig("vit", {**LAYERS, "patch_size": PATCH}),
        "caption": EncoderConfig("clip_text_model", {**LAYERS, **ENDS}, tokenizer=small_tokenizer()),
    }
    data = DataConfig("captions", "nowhere", modalities=modalities, global_batch=BATCH)
    return Config(method=ClipConfig(), data=data, model=ModelConfig(embed_dim=128, encoders=encoders))


def batches(config: Config, size: int) -> tuple[Engine, dict[str, Batch]]:
    """The engine, and its samples padded in both ways."""
    processor = build_processor(config)
    method = build_method(config, processor)
    random = np.random.default_rng(0)
    words = ["a", "bold", "light", "seven", "three", "digit"]
    counts = random.integers(LENGTHS[0], LENGTHS[1] + 1, BATCH)
    texts = [" ".join(random.choice(words, count)) for count in counts]
    images = {"pixel_values": torch.from_numpy(random.standard_normal((BATCH, 3, size, size), dtype=np.float32))}
    full = processor(caption=texts)["caption"]
    assert pad_by_batch(config, processor, padding_faults(config, method.model, processor)) == ([], [])
    captions = {"full": full, "by the batch": processor(caption=texts)["caption"]}
    ids = torch.arange(BATCH)
    made = {name: Batch({"image": images, "caption": found}, None, ids, ids) for name, found in captions.items()}
    return Engine(config, method), made


def main() -> None:
    """Alternate the two, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--size", type=int, default=64, help="pixels of the images' sides, in patches of 8")
    options = parser.parse_args()
    os.environ.update(ALONE)
    torch.set_num_threads(1)
    steps = 5 if options.quick else 20
    engine, made = batches(config_of(options.size), options.size)
    cpu: dict[str, list[float]] = {name: [] for name in made}
    clock: dict[str, list[float]] = {name: [] for name in made}
    for index in range(2 * (steps + 2)):
        name = list(made)[index % 2]
        before, began = time.process_time(), time.perf_counter()
        engine.step(made[name], Step(index, index / 10, 10.0, seed=0))
        cpu[name].append(time.process_time() - before)
        clock[name].append(time.perf_counter() - began)
    engine.close()
    medians = {name: statistics.median(cpu[name][2:]) for name in made}  # the first ones allocate
    clocks = {name: statistics.median(clock[name][2:]) for name in made}
    lengths = {name: batch.inputs["caption"]["input_ids"].shape[1] for name, batch in made.items()}
    rows = [[name, str(lengths[name]), f"{medians[name]:.3f}", f"{clocks[name]:.3f}"] for name in made]
    show(f"a step of CLIP, batch {BATCH}, {options.size} pixels", ["padding", "tokens", "CPU s", "s"], rows)
    ratio = medians["full"] / medians["by the batch"]
    finish({"cpu_seconds": medians, "seconds": clocks, "tokens": lengths, "speed_up": ratio, "steps": steps})


if __name__ == "__main__":
    main()
