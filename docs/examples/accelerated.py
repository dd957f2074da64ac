"""InfoNCE in an accelerate loop: accelerate launch --cpu --num_processes 2 docs/examples/accelerated.py"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from towers import Towers, batches

from mmpretrain.losses import InfoNCE


def train() -> dict[str, torch.Tensor]:
    """Five steps; the weights and the temperature after them."""
    accelerator = Accelerator(cpu=True)
    loss = InfoNCE()
    model = Towers()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    # The loss need not be prepared: it averages its own gradients.
    model, optimizer = accelerator.prepare(model, optimizer)
    for images, texts in batches(accelerator.process_index, accelerator.num_processes):
        optimizer.zero_grad()
        accelerator.backward(loss(*model(images, texts)))
        optimizer.step()
        loss.clamp_()
    return {**accelerator.unwrap_model(model).state_dict(), **loss.state_dict()}


if __name__ == "__main__":
    weights = train()
    print(f"image encoder {weights['image.weight'].sum():.6f}")
