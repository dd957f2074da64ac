"""What flows from the stream to a method. Shapes: b = samples of this rank in this step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmpretrain.distributed.sending import sent

PRESENT = "present"
NEGATIVES = "negatives"  # the view that holds hard negatives, [b, count, ...] of each modality that has some
SOURCE = "source"  # the view that holds what augmentations start from, where that is not ``inputs``
Inputs = dict[str, dict[str, Tensor]]  # modality -> keyword argument of its encoder -> [b, ...]


@dataclass(frozen=True)
class Replacement:
    """A sample that could not be read, and the key of what stood in for it; empty where it was left out.

    source: of a mixture, the name of the one that it is of.
    """

    position: int
    key: str
    substitute: str
    shard: str
    error: str
    source: str = ""


@dataclass(frozen=True)
class Batch:
    """One rank's share of one global batch: samples of one step of the plan, all of this rank's and no others.

    Every rank has equally many. Shapes behind b may differ between ranks and steps: texts and sequences are as long as
    the longest of the batch.

    inputs: what the encoders get; a modality that samples may lack has ``present`` (bool [b]) among its tensors, and
    rows without content where it is False. labels: None, or int64 [b]; also
    int64 [b, C] of 0 and 1 or float32 [b] (``data.label.form``). sample_ids: int64 [b], the sample's ordinal in
    the dataset (equal ids are the same sample). positions: int64 [b], consecutive stream positions. keys: [b].
    views: further inputs by name (``mixed``), made by ``Method.prepare``; the stream's ``source`` is for augmentations.
    mixing: modality -> :class:`Mixing`. cropped: modalities whose ``train.crop`` has been done when they were read.
    on_host: the positions on the host, of a batch that was moved to a device; see :attr:`host_positions`. copies:
    whether some sample may be in the global batch more than once; False: none is, as the whole plan shows.

    A batch as loader processes make it is not finished: its pictures are ``pixels`` (uint8 [b, h, w, c]) in place of
    the encoders' ``pixel_values``.
    """

    inputs: Inputs
    labels: Tensor | None
    sample_ids: Tensor
    positions: Tensor
    keys: tuple[str, ...] = ()
    replaced: tuple[Replacement, ...] = ()
    views: dict[str, Inputs] = field(default_factory=dict)
    mixing: dict[str, Mixing] = field(default_factory=dict)
    cropped: frozenset[str] = frozenset()
    on_host: Tensor | None = None
    copies: bool = True

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def classes(self) -> Tensor | None:
        """``labels`` if they are one class per sample, int64 [b]."""
        labels = self.labels
        return labels if labels is not None and labels.dim() == 1 and not labels.is_floating_point() else None

    @property
    def present(self) -> dict[str, Tensor]:
        """Modality -> bool [b], whether each sample has it; modalities that all have are left out."""
        return {name: tensors[PRESENT] for name, tensors in self.inputs.items() if PRESENT in tensors}

    @property
    def host_positions(self) -> Tensor:
        """``positions`` where looking at them keeps nobody waiting."""
        return self.positions if self.on_host is None else self.on_host

    def split(self, count: int) -> list[Batch]:
        """``count`` runs of consecutive samples, equally many in each, for encoders.

        ``mixing`` and ``replaced`` stay with the whole batch, whose rows the former counts. Raises ValueError when
        the samples cannot be shared equally.
        """
        if len(self) % count:
            raise ValueError(
                f"engine.micro_batches={count} does not divide the local batch of {len(self)} samples:"
                " change it, data.global_batch, or the number of ranks"
            )
        size = len(self) // count
        return [self._rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def _rows(self, rows: slice) -> Batch:
        return replace(
            self,
            inputs=_cut(self.inputs, rows),
            views={name: _cut(view, rows) for name, view in self.views.items()},
            labels=None if self.labels is None else self.labels[rows],
            sample_ids=self.sample_ids[rows],
            positions=self.positions[rows],
            keys=self.keys[rows],
            on_host=None if self.on_host is None else self.on_host[rows],
            replaced=(),
            mixing={},
        )

    def tensors(self) -> list[Tensor]:
        """All that lies on the device once it is there."""
        views = [tensor for view in self.views.values() for tensors in view.values() for tensor in tensors.values()]
        inputs = [tensor for tensors in self.inputs.values() for tensor in tensors.values()]
        labels = [] if self.labels is None else [self.labels]
        return [*inputs, *views, *labels, self.sample_ids, self.positions]

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on ``device``. A GPU fetches it while the processor goes on."""
        return replace(
            self,
            inputs=_move(self.inputs, device),
            views={name: _move(view, device) for name, view in self.views.items()},
            labels=None if self.labels is None else sent(self.labels, device),
            sample_ids=sent(self.sample_ids, device),
            positions=sent(self.positions, device),
            # A copy: as a part of the whole batch it would keep that in memory.
            on_host=self.host_positions.clone() if self.host_positions.device.type == "cpu" else None,
        )


@dataclass(frozen=True)
class Mixing:
    """How each sample is mixed: ``weight[i] * x[i] + (1 - weight[i]) * x[partner[i]]``.

    weight: float [n] in [0, 1]; partner: int64 [n], row numbers inside the same n rows.
    """

    weight: Tensor
    partner: Tensor

    def on(self, device: torch.device) -> Mixing:
        """The same on ``device``."""
        return Mixing(sent(self.weight, device), sent(self.partner, device))


def _move(inputs: Inputs, device: torch.device) -> Inputs:
    return {m: {k: sent(t, device) for k, t in tensors.items()} for m, tensors in inputs.items()}


def _cut(inputs: Inputs, rows: slice) -> Inputs:
    return {m: {k: t[rows] for k, t in tensors.items()} for m, tensors in inputs.items()}
