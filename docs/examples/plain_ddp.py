"""InfoNCE in a plain DDP loop: torchrun --nproc-per-node 2 docs/examples/plain_ddp.py"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from towers import Towers, batches

from mmpretrain.losses import InfoNCE


def train() -> dict[str, torch.Tensor]:
    """Five steps; the weights and the temperature after them."""
    model, loss = DistributedDataParallel(Towers()), InfoNCE()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    for images, texts in batches(dist.get_rank(), dist.get_world_size()):
        optimizer.zero_grad()
        loss(*model(images, texts)).backward()
        optimizer.step()
        loss.clamp_()
    return {**model.module.state_dict(), **loss.state_dict()}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    weights = train()
    print(f"rank {dist.get_rank()}: image encoder {weights['image.weight'].sum():.6f}")
    dist.destroy_process_group()
