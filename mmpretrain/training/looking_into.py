"""Before a run starts: what do some samples say that the index cannot know?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.data import DataConfig, Verify
from mmpretrain.config.root import Config
from mmpretrain.data.decode import SampleError
from mmpretrain.data.reader import read_sample
from mmpretrain.data.samples import label_of, objects_of
from mmpretrain.data.stream import Stream

READ = 64  # samples, evenly spaced, whole
TEXTS = 256  # evenly spaced
WORTH_SAYING = 0.01  # of texts that are cut


@contextmanager
def opened(config: Config) -> Iterator[Stream]:
    """The stream of local shards, to be looked into. Raises ShardError."""
    # The stream that trains verifies its shards itself.
    data: DataConfig = replace(config.data, verify=Verify.never, workers=0)
    stream = Stream(data, "train", config.seed, 0, 1, processor=dict)
    try:
        yield stream
    finally:
        stream.reader.close()


def unreadable(config: Config, stream: Stream) -> tuple[list[str], list[str]]:
    """(problems, notes): samples of local shards that cannot be used, if there are any among some of them.

    Up to the share that ``data.max_bad_fraction`` allows, and a single one in any case, they are a note. Raises
    ShardError.
    """
    data, bad = config.data, []
    ordinals = _spaced(stream, READ)
    for ordinal in ordinals:
        try:
            sample, members = stream.reader.sample(ordinal), stream.reader.members_of(ordinal)
            objects_of(sample, data.modalities, members)
            if members.label is not None:
                label_of(sample, members.label, data.classes or 0, data.label.form, data.label.numbers)
        except SampleError as error:
            bad.append(f"key {stream.index.key(ordinal)!r}: {error}")
    if not bad:
        return [], []
    said = f"{len(bad)} of {len(ordinals)} samples of train that were looked into cannot be used (first: {bad[0]})"
    if len(bad) <= max(1, data.max_bad_fraction * len(ordinals)):
        return [], [f"{said}: others will stand in for them"]
    allowed = f"data.max_bad_fraction={data.max_bad_fraction}"
    return [f"{said}, more than {allowed} allows: repair the shards, or raise it"], []


def cut_texts(config: Config, sources: EncoderSources, stream: Stream) -> list[str]:
    """A sentence for each modality whose texts often have more tokens than are kept; reads local shards.

    Raises ShardError, and UnusableError for a tokenizer that does not open.
    """
    texts = [name for name, modality in config.data.modalities.items() if modality.kind.row.tokenized]
    if not texts or not set(texts) <= set(sources):
        return []
    kinds = {name: config.data.modalities[name].kind for name in texts}
    lengths: dict[str, list[int]] = {name: [] for name in texts}
    for ordinal in _spaced(stream, TEXTS):
        try:
            sample = read_sample(stream.reader, kinds, ordinal)
        except SampleError:
            continue
        for name, text in sample.items():
            tokenizer: Any = sources[name].tokenizer
            lengths[name].append(len(tokenizer(text, verbose=False)["input_ids"]))
    return [note for name in texts if (note := _note(name, lengths[name], config.data.modalities[name].max_length))]


def _spaced(stream: Stream, count: int) -> list[int]:
    return np.unique(np.linspace(0, len(stream.index) - 1, count).astype(int)).tolist()


def _note(name: str, lengths: list[int], limit: int) -> str | None:
    share = float(np.mean([length > limit for length in lengths])) if lengths else 0.0
    if share < WORTH_SAYING:
        return None
    enough = int(np.quantile(lengths, 0.99, method="higher"))
    return (
        f"{name}: {share:.0%} of {len(lengths)} texts have more tokens than data.modalities.{name}.max_length={limit}"
        f" and are cut; {enough} would keep 99 % of them whole"
    )
