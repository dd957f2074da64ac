"""Before a run starts: how many texts would be cut?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.data import Verify
from mmpretrain.config.root import Config
from mmpretrain.data.decode import SampleError
from mmpretrain.data.reader import read_sample
from mmpretrain.data.stream import Stream

LOOKED_AT = 256  # texts, evenly spaced
WORTH_SAYING = 0.01  # of them


def cut_texts(config: Config, sources: EncoderSources) -> list[str]:
    """A sentence for each modality whose texts often have more tokens than are kept; reads local shards.

    Raises ShardError, and UnusableError for a tokenizer that does not open.
    """
    texts = [name for name, modality in config.data.modalities.items() if modality.kind.row.tokenized]
    if not texts or not set(texts) <= set(sources):
        return []
    data = replace(config.data, verify=Verify.never, workers=0)
    stream = Stream(data, "train", config.seed, 0, 1, processor=dict)
    kinds = {name: config.data.modalities[name].kind for name in texts}
    lengths: dict[str, list[int]] = {name: [] for name in texts}
    size = len(stream.index)
    for ordinal in np.unique(np.linspace(0, size - 1, LOOKED_AT).astype(int)).tolist():
        try:
            sample = read_sample(stream.reader, kinds, ordinal)
        except SampleError:
            continue
        for name, text in sample.items():
            tokenizer: Any = sources[name].tokenizer
            lengths[name].append(len(tokenizer(text, verbose=False)["input_ids"]))
    stream.reader.close()
    return [note for name in texts if (note := _note(name, lengths[name], config.data.modalities[name].max_length))]


def _note(name: str, lengths: list[int], limit: int) -> str | None:
    share = float(np.mean([length > limit for length in lengths])) if lengths else 0.0
    if share < WORTH_SAYING:
        return None
    enough = int(np.quantile(lengths, 0.99, method="higher"))
    return (
        f"{name}: {share:.0%} of {len(lengths)} texts have more tokens than data.modalities.{name}.max_length={limit}"
        f" and are cut; {enough} would keep 99 % of them whole"
    )
