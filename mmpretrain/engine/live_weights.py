"""The float32 weights that a rank steps, under ZeRO 0-3: which part of which parameter they are, how to change them.

At stage 0 every rank holds whole parameters. At stages 1 to 3 it holds a fragment of some or all of them, a view of
DeepSpeed's flat float32 partitions, out of which the model's weights are made anew after every step. Fragments of a
parameter, in the order of ranks, are its numbers in order; padding belongs to none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

MODEL, HEADS = "model.", "heads."  # before the names of parameters


class Fragment(NamedTuple):
    """numbers: flat, float32, the very memory that is stepped. start: where they begin in the flat parameter."""

    numbers: Tensor
    start: int


class LiveWeights:
    """Of an engine: what trains in its model, by fragments, and in its heads, whole. Critics are left out.

    deepspeed: DeepSpeed's engine. stage: of ZeRO. rank: this one's.
    """

    def __init__(self, deepspeed: Any, stage: int, heads: nn.Module, rank: int) -> None:
        self._deepspeed, self.stage, self._heads, self.rank = deepspeed, stage, heads, rank

    def fragments(self) -> dict[str, Fragment]:
        """``model.NAME`` -> this rank's fragment, of those it has one of; ``heads.NAME`` -> whole, on every rank.

        Asked for anew each time: loading a checkpoint may put other memory in the place of what was there.
        """
        found = {f"{MODEL}{name}": fragment for name, fragment in self._of_model()}
        heads = self._heads.named_parameters()
        return found | {f"{HEADS}{name}": Fragment(p.data.view(-1), 0) for name, p in heads if p.requires_grad}

    def refresh(self) -> None:
        """Make the model's weights of the fragments, after those were changed; a collective."""
        if self.stage == 0:
            return
        optimizer = self._deepspeed.optimizer
        if self.stage < 3:
            optimizer.update_lp_params()
            return
        # As at the end of DeepSpeed's own step.
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer._post_step(set())

    def _of_model(self) -> Iterator[tuple[str, Fragment]]:
        named = self._deepspeed.module.named_parameters()
        for name, parameter in ((name, p) for name, p in named if p.requires_grad):
            if self.stage == 0:
                yield name, Fragment(parameter.data.view(-1), 0)
            elif self.stage < 3:
                mapping = getattr(parameter, "_hp_mapping", None)
                if mapping is not None:
                    yield name, Fragment(mapping.hp_fragment, mapping.lp_fragment_address.start)
            else:
                yield from self._divided(name, parameter)

    def _divided(self, name: str, parameter: Any) -> Iterator[tuple[str, Fragment]]:
        """Of ZeRO 3: every rank holds equally many numbers, of which the last ranks' may be padding."""
        flat, _ = self._deepspeed.optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=False)
        start = self.rank * flat.numel()
        count = min(flat.numel(), parameter.ds_numel - start)
        if count > 0:
            yield name, Fragment(flat.narrow(0, 0, count), start)
