"""Hard negatives of samples: texts beside their captions, which training takes as further keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.data.batch import PRESENT, Inputs
from mmpretrain.data.members import Holders, Members, suffix_of
from mmpretrain.data.random import uniform
from mmpretrain.data.samples import Sample, captions_of
from mmpretrain.data.seeds import sub_seed
from mmpretrain.models.texts_mmpretrain import is_blank

Texts = dict[str, list[str]]  # modality -> hard negatives of one sample


def hard_negatives_of(sample: Sample, modalities: Mapping[str, ModalityConfig], members: Members) -> Texts:
    """All hard negatives of a sample, in order, without those that it has among its captions. Raises SampleError."""
    found: Texts = {}
    for name, holders in members.negatives.items():
        kind = modalities[name].kind
        captions = set(captions_of(sample, kind, members.modalities[name]))
        found[name] = [text for text in _texts(sample, kind, holders) if text not in captions]
    return found


def drawn_negatives(texts: Texts, modalities: Mapping[str, ModalityConfig], seed: int, position: int) -> Texts:
    """Those that a stream position uses: at most ``count`` of each modality, a function of (seed, position)."""
    found: Texts = {}
    for name, all_of_them in texts.items():
        negatives = modalities[name].negatives
        assert negatives is not None
        if len(all_of_them) > negatives.count:
            own = sub_seed(seed, 0, "negatives", name)
            (numbers,) = uniform(own, torch.tensor([position]), (len(all_of_them),))
            chosen = numbers.argsort(stable=True)[: negatives.count].sort().values
            all_of_them = [all_of_them[place] for place in chosen.tolist()]
        found[name] = all_of_them
    return found


def stacked(
    rows: Sequence[Texts],
    captions: Mapping[str, Sequence[str | None]],
    modalities: Mapping[str, ModalityConfig],
    processed: Callable[[dict[str, list[str | None]]], Inputs],
) -> Inputs:
    """Inputs [b, count, ...] of the hard negatives of b samples, with ``present`` (bool [b, count]).

    rows: of each sample. captions: modality -> its text, None for a sample without, as the processor takes; that fills
    places without a hard negative, which nothing reads. processed: texts by modality -> their inputs.
    """
    counts = {name: entry.negatives.count for name, entry in modalities.items() if entry.negatives is not None}
    filled = {
        name: [
            text
            for row, caption in zip(rows, captions[name], strict=True)
            for text in _filled(row.get(name, []), count, caption)
        ]
        for name, count in counts.items()
    }
    inputs = processed(filled)
    return {name: _shaped(inputs[name], [len(row.get(name, [])) for row in rows], counts[name]) for name in counts}


def _filled(texts: list[str], count: int, caption: str | None) -> list[str | None]:
    return [*texts, *[caption] * (count - len(texts))]


def _shaped(tensors: Mapping[str, Tensor], lengths: list[int], count: int) -> dict[str, Tensor]:
    shaped = {key: tensor.unflatten(0, (-1, count)) for key, tensor in tensors.items()}
    return shaped | {PRESENT: torch.arange(count) < torch.tensor(lengths)[:, None]}


def _texts(sample: Sample, kind: Kind, holders: Holders) -> Iterator[str]:
    for member in holders.members:
        for text in captions_of(sample, kind, Holders((member,), holders.fields)):
            if suffix_of(member) == "json":
                yield text
            else:
                yield from (line for line in text.splitlines() if not is_blank(line))
