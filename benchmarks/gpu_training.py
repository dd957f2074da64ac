"""Pairs per second of CLIP on one GPU, from JPEGs in tars to the update, and the share of the GPU's peak.

    python -m benchmarks.gpu_training          # a part of `make gpu`

ViT-B/16 and ViT-L/14 on 224 pixels with CLIP's text towers for them, random weights, under `engine=gpu`: photos of 256
pixels are decoded and cut at random by worker processes, captions of 7 to 22 tokens are padded to the longest of their
batch. The share of the peak counts the operations of the model alone (mmpretrain/engine/flops.py), at the bfloat16 peak
that the maker states. Not yet run anywhere: no figures exist.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.step_loading import CAPTION, IMAGE, WORDS, make_shards, tree_tokens
from mmpretrain.assembly.training_options import compiler_lacking
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.engine import Precision
from mmpretrain.config.root import Config
from mmpretrain.engine.flops import training_flops
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.costs import memory_gib, peak
from mmpretrain.training.session import Session
from tests.engine.runs import forget_engines
from tests.small_tokenizer import small_tokenizer

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
LONGEST = 77
WARM_UP = 20  # steps: kernels are chosen, and what the loader had made ahead is used up
SECONDS = 10.0  # that are timed, or STEPS if they are over before
STEPS = 60
WHOLE = 130 * 2**30  # bytes of GPU memory for which the batches below are meant
ENDS = {"bos_token_id": 2, "eos_token_id": 3}  # those of the small tokenizer

Line = dict[str, Any]


@dataclass(frozen=True)
class Towers:
    """Two encoders. image, text: hidden size, layers, heads. batch: of one GPU of WHOLE memory. target: share of the
    bfloat16 peak on an H200, where one is set."""

    image: tuple[int, int, int]
    text: tuple[int, int, int]
    patch: int
    batch: int
    compiled: bool = False
    target: float | None = None


LARGE = Towers((1024, 24, 16), (768, 12, 12), 14, 256, target=0.45)
BASE = Towers((768, 12, 12), (512, 12, 8), 16, 512)
CASES = {
    "ViT-L/14": LARGE,
    "ViT-B/16": BASE,
    "ViT-L/14, compiled": Towers(LARGE.image, LARGE.text, 14, 256, compiled=True, target=0.45),
}
SMALL = {"two layers": Towers((32, 2, 2), (32, 2, 2), 32, 8)}


def config_of(folder: Path, towers: Towers, batch: int) -> Config:
    """Of a run that never ends by itself."""
    sizes = [_sizes(*towers.image), _sizes(*towers.text)]
    text = {"tokenizer": small_tokenizer(WORDS), "config": sizes[1] | ENDS | {"max_position_embeddings": LONGEST}}
    encoders: dict[str, dict[str, Any]] = {
        "image": {"architecture": "vit", "config": sizes[0] | {"patch_size": towers.patch}},
        # CLIP's texts look back alone.
        "caption": {"architecture": "clip_text_model", **text, "padding_mask": False},
    }
    trees: dict[str, dict[str, Any]] = {
        "data.modalities.image": IMAGE,
        "data.modalities.caption": {**CAPTION, "max_length": LONGEST},
        **{f"model.encoders.{name}": encoder | {"compile": towers.compiled} for name, encoder in encoders.items()},
    }
    return compose(
        [
            *("method=clip", "engine=gpu", "data=own", "model=own", "data.name=photos", f"data.path={folder}"),
            *(f"data.global_batch={batch}", f"model.embed_dim={towers.text[0]}", "evaluation.final=[]"),
            *(f"train.samples={batch * 1000}", "train.log_every_steps=20", *tree_tokens(trees)),
        ]
    )


def _sizes(width: int, layers: int, heads: int) -> dict[str, int]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width}
    return sizes | {"num_hidden_layers": layers, "num_attention_heads": heads}


def measured(data: Path, runs: Path, name: str, towers: Towers, seconds: float) -> Line:
    """Whole steps of training/train.py, data and records included, for so long; one row."""
    forget_engines()
    run, batch = RunFolder(runs / name.replace("/", "-")), batch_of(towers)
    run.path.mkdir(parents=True)
    save_config(config_of(data, towers, batch), run.config)
    with Session(run) as session:
        done, start, flops, device = session.resume(), 0.0, 0.0, session.engine.device
        for samples in session.batches(done):
            if done == 0:
                flops = training_flops(session.engine, samples, session.step(done))
            if done == WARM_UP:
                memory_gib(device)
                start = time.perf_counter()
            report = session.engine.step(samples, session.step(done))
            done += 1
            session.record(done, samples, report, stop=False)
            if done >= WARM_UP + 2 and (time.perf_counter() - start > seconds or done == WARM_UP + STEPS):
                break
        # The step has read its losses: everything is done.
        rate = batch * (done - WARM_UP) / (time.perf_counter() - start)
        best, memory = peak(Precision.bfloat16, device), memory_gib(device)
    target = {} if towers.target is None else {"target (H200)": towers.target}
    share = {} if best is None else {"share of the bf16 peak": flops * rate / (best * 1e12)}
    row = {"batch": batch, "pairs/s": rate, "GFLOP per pair": flops / 1e9, "TFLOP/s": flops * rate / 1e12}
    return row | share | target | {"GiB": memory}


def batch_of(towers: Towers) -> int:
    """The batch that is meant for WHOLE, halved until it suits the GPU that is there."""
    batch = towers.batch
    if torch.cuda.is_available():
        memory, share = torch.cuda.get_device_properties(0).total_memory, 1.0
        while memory < share * WHOLE and batch > 8:
            batch, share = batch // 2, share / 2
    return batch


def lines(device: torch.device, small: bool) -> Iterator[Line]:
    """A row per case, in the form of tests/gpu/parts.py."""
    os.environ.update(ALONE)
    cases: dict[str, Towers] = SMALL if small else CASES
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "photos"
        make_shards(data, 64) if small else make_shards(data)
        for name, towers in cases.items():
            row: Line = {"table": "CLIP from JPEGs to the update", "towers": name}
            lacking = compiler_lacking() if towers.compiled else None
            try:
                found = (
                    {"note": f"needs {lacking}"}
                    if lacking
                    else measured(data, Path(folder), name, towers, 1.0 if small else SECONDS)
                )
            except Exception as error:  # every case has its turn
                found = {"note": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            yield row | found
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> None:
    """Lines of JSON; without a GPU one sentence of why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(json.dumps({"skipped": "this benchmark needs a GPU, and torch sees none here"}))
        return
    for line in lines(torch.device("cuda", 0), False):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
