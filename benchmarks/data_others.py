"""Others' loaders over the same tars, run by the Python of an environment that has them (see benchmarks/data.py).

    python benchmarks/data_others.py NAME FOLDER WORKERS SAMPLES BATCH

Of this project nothing is imported. Prints one line of JSON: seconds, processor seconds, bytes of the inputs.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

SIZE, CROP = 224, (0.9, 1.0)

try:  # A torchvision of another build than torch fails when it is imported, unless these exist.
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
except RuntimeError:
    pass


def _shards(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "train").glob("*.tar")))


def _transforms() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """open_clip's for training, and its tokenizer."""
    import open_clip

    images = open_clip.image_transform(SIZE, is_train=True, aug_cfg={"scale": CROP})
    return images, open_clip.get_tokenizer("ViT-B-32")


def open_clip_pipeline(folder: Path, workers: int, samples: int, batch: int) -> Iterator[Any]:
    """open_clip's own pipeline, as its training script makes it."""
    import open_clip_train.data as theirs

    # webdataset 1 ends a shard with a mark that open_clip 3.3 takes for a sample.
    theirs.tar_file_expander = partial(theirs.tar_file_expander, eof_value=None)
    images, tokenizer = _transforms()
    arguments = Namespace(
        train_data="::".join(_shards(folder)),
        train_num_samples=samples,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=workers,
        world_size=1,
        batch_size=batch,
    )
    return iter(theirs.get_wds_dataset(arguments, images, is_train=True, tokenizer=tokenizer).dataloader)


def webdataset_pipeline(folder: Path, workers: int, samples: int, batch: int) -> Iterator[Any]:
    """webdataset's loader with open_clip's transform."""
    import webdataset

    images, tokenizer = _transforms()
    stages = webdataset.WebDataset(_shards(folder), shardshuffle=100, workersplitter=webdataset.split_by_worker)
    read = stages.shuffle(1000).decode("pilrgb").to_tuple("jpg", "txt")
    found = read.map_tuple(images, lambda text: tokenizer(text)[0]).batched(batch)
    return iter(webdataset.WebLoader(found, batch_size=None, num_workers=workers))


def webdataset_raw(folder: Path, workers: int, samples: int, batch: int) -> Iterator[Any]:
    """The members' bytes alone, shuffled within a buffer."""
    import webdataset

    stages = webdataset.WebDataset(_shards(folder), shardshuffle=100, workersplitter=webdataset.split_by_worker)
    read = stages.shuffle(1000).to_tuple("jpg", "txt").batched(batch, collation_fn=list)
    return iter(webdataset.WebLoader(read, batch_size=None, num_workers=workers))


def litdata_pipeline(folder: Path, workers: int, samples: int, batch: int) -> Iterator[Any]:
    """litdata's chunks of the same JPEGs, its loader, and open_clip's transform."""
    import webdataset
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.cache import Cache
    from PIL import Image

    chunks = folder / "litdata"
    if not chunks.exists():
        cache = Cache(str(chunks), chunk_bytes="64MB")
        for number, sample in enumerate(webdataset.WebDataset(_shards(folder), shardshuffle=False)):
            cache[number] = {"image": sample["jpg"], "text": sample["txt"].decode()}
        cache.done()
        cache.merge()
    images, tokenizer = _transforms()

    class Photos(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return images(Image.open(io.BytesIO(sample["image"]))), tokenizer(sample["text"])[0]

    found = Photos(str(chunks), shuffle=True, max_cache_size="50GB")
    return iter(StreamingDataLoader(found, batch_size=batch, num_workers=workers))


LOADERS = {
    "open_clip": open_clip_pipeline,
    "webdataset": webdataset_pipeline,
    "webdataset_raw": webdataset_raw,
    "litdata": litdata_pipeline,
}


def run(batches: Callable[[], Iterator[Any]], size: Callable[[Any], int]) -> None:
    """Print what one pass takes, from the start of the loader on."""
    start, cpu, seen = time.perf_counter(), _cpu(), 0
    made = batches()
    for content in made:
        seen += size(content)
    seconds = time.perf_counter() - start
    del made
    print(json.dumps({"samples": seen, "seconds": seconds, "cpu_seconds": _cpu() - cpu}), flush=True)


def _cpu() -> float:
    """Of this process and of the children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """One loader, as the command line says."""
    torch.set_num_threads(1)
    name, folder, (workers, samples, batch) = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:6])
    if name == "litdata":
        for _ in litdata_pipeline(folder, 0, samples, batch):
            break  # its chunks are written and its code is loaded
    else:
        _transforms()
    run(
        lambda: LOADERS[name](folder, workers, samples, batch),
        lambda batch: len(batch[0]) if name != "webdataset_raw" else len(batch),
    )


if __name__ == "__main__":
    main()
