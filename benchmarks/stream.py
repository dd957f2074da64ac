"""Samples per second of our stream beside webdataset's own pipeline: same shards, same decoding, one process.

    mmpretrain shards build digits
    python -m benchmarks.stream [--quick] [--repeats 5]

Both turn the digits' shards into batches of encoder inputs with the same processor; ours in the planned global order,
webdataset shard by shard. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import webdataset
from PIL import Image

from benchmarks.measure import finish, show
from mmpretrain.assembly.build import build_processor
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.stream import Stream


def ours(config: Config, processor: Any, steps: int) -> Iterator[Any]:
    """Batches of our stream."""
    return Stream(config.data, "train", 0, 0, 1, processor).batches(0, steps)


def theirs(config: Config, processor: Any, steps: int) -> Iterator[Any]:
    """Batches of webdataset's reader, shuffled within a buffer, with the same decoding and processor."""
    shards = sorted(map(str, (Path(config.data.paths[0]) / "train").glob("*.tar")))
    dataset = webdataset.WebDataset(shards * 100, shardshuffle=False, empty_check=False).shuffle(1000)
    decoded = dataset.map(_decode).batched(config.data.global_batch, partial=False, collation_fn=None)
    return (processor(**{m: [s[m] for s in batch] for m in config.data.modalities}) for batch in islice(decoded, steps))


def _decode(sample: dict[str, Any]) -> dict[str, Any]:
    images = {half: Image.open(io.BytesIO(sample[f"{half}.png"])) for half in ("left", "right")}
    return {**images, "caption": sample["caption.txt"].decode(), "label": int(sample["label.cls"])}


def rate(batches: Iterator[Any], steps: int, batch: int) -> float:
    """Samples per second, the start included."""
    start = time.perf_counter()
    assert sum(1 for _ in batches) == steps
    return steps * batch / (time.perf_counter() - start)


def main() -> None:
    """Alternate the two, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config, steps = compose(), 40 if options.quick else 200
    processor = build_processor(config)
    rates: dict[str, list[float]] = {"mmpretrain": [], "webdataset": []}
    for _ in range(options.repeats):
        for name, make in (("mmpretrain", ours), ("webdataset", theirs)):
            rates[name].append(rate(make(config, processor, steps), steps, config.data.global_batch))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [[name, f"{value:,.0f}"] for name, value in medians.items()]
    show("stream of the digits", ["reader", "samples/s (median)"], rows)
    ratio = medians["mmpretrain"] / medians["webdataset"]
    finish({"samples_per_s": medians, "ratio": ratio, "repeats": options.repeats, "steps": steps})


if __name__ == "__main__":
    main()
