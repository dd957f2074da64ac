"""SigLIP's loss under FSDP2: torchrun --nproc-per-node 2 docs/examples/fsdp2.py"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from towers import Towers, batches

from mmpretrain.losses import SigmoidLoss


def train() -> dict[str, torch.Tensor]:
    """Five steps; the whole weights, the temperature and the bias after them."""
    # The loss stays outside of the sharded model: its two numbers are whole on every rank, and it averages their
    # gradients itself.
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model, loss = fully_shard(Towers(), mesh=mesh), SigmoidLoss()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model, loss)]
    for images, texts in batches(dist.get_rank(), dist.get_world_size()):
        loss(*model(images, texts)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        loss.clamp_()
    return {**{name: shard.full_tensor() for name, shard in model.state_dict().items()}, **loss.state_dict()}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    weights = train()
    print(f"rank {dist.get_rank()}: image encoder {weights['image.weight'].sum():.6f}")
    dist.destroy_process_group()
