"""What LoRA saves: one image encoder trained whole, by LoRA, and not at all, interleaved in one process.

    python -m benchmarks.lora [--quick] [--rank 8] [--rows 16] [--steps 10]

A step is forward, backward and AdamW of the encoder's projection and of whatever else trains. Bytes of gradients and
moments are counted, and those of tensors that the forward pass keeps for the backward. The last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.measure import MIB, finish, show
from mmpretrain.assembly.build import build_model
from mmpretrain.config.engine import OptimConfig
from mmpretrain.config.lora import LoraConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups
from tests.models.small import small_config

SIZE, PATCH = 64, 8  # pixels; 65 tokens
FORMS = ("whole", "lora", "frozen")


@dataclass
class Form:
    """One way to train. cpu_s: of each step."""

    name: str
    config: Config
    cpu_s: list[float] = field(default_factory=list)
    kept: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        model = build_model(self.config)
        self.encoder, self.projection = model.encoders["picture"], model.projections["picture"]
        parts = torch.nn.ModuleDict({"encoder": self.encoder, "projection": self.projection})
        self.trained = [parameter for parameter in parts.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(parameter_groups(parts, OptimConfig(), {}), OptimConfig())

    def step(self, images: Tensor) -> None:
        """One step; what it took and keeps."""
        kept: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.encoder.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            if (place := tensor.untyped_storage().data_ptr()) not in weights:
                kept[place] = tensor.untyped_storage().nbytes()
            return tensor

        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.projection(self.encoder(pixel_values=images)).square().mean()
        loss.backward()
        self.optimizer.step()
        self.cpu_s.append(time.process_time() - start)
        self.kept = sum(kept.values())
        self.optimizer.zero_grad()

    def figures(self) -> dict[str, float]:
        """Of all steps but the first."""
        numbers = sum(parameter.numel() for parameter in self.trained)
        return {
            "trained": numbers,
            "state_mib": round(3 * 4 * numbers / MIB, 2),
            "kept_mib": round(self.kept / MIB, 1),
            "cpu_s": round(statistics.median(self.cpu_s[1:]), 3),
        }


def form(name: str, rank: int, layers: int) -> Form:
    """The encoder: ViT-S with so many layers."""
    config = small_config(lora=LoraConfig(rank=rank, modalities=["picture"]) if name == "lora" else LoraConfig())
    config.data.modalities["picture"].size = [SIZE, SIZE]
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": layers}
    config.model.encoders["picture"] = EncoderConfig("vit", {**sizes, "patch_size": PATCH}, freeze=name == "frozen")
    return Form(name, config)


def main() -> None:
    """Steps of all forms in turn; a table, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two layers, three steps")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rows", type=int, default=16, help="images in a step")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    forms = [form(name, options.rank, 2 if options.quick else 12) for name in FORMS]
    images = torch.randn(options.rows, 1, SIZE, SIZE)
    for _ in range(3 if options.quick else options.steps):
        for one in forms:
            one.step(images)
    found = {one.name: one.figures() for one in forms}
    rows = [[name, *(f"{value:,}" for value in figures.values())] for name, figures in found.items()]
    title = f"ViT-S, {options.rows} images of {SIZE} pixels, LoRA of rank {options.rank}"
    show(title, ["trains", "parameters", "gradients and moments, MiB", "kept for backward, MiB", "CPU s a step"], rows)
    finish({"rank": options.rank, "rows": options.rows, **found})


if __name__ == "__main__":
    main()
