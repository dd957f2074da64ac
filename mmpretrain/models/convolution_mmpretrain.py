"""A plain convolutional encoder of images, described layer by layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .pooling_mmpretrain import StateForm
from .precision_mmpretrain import as_weight


@torch.no_grad()
def init_convolution(layer: nn.Conv2d) -> None:
    """torch's own default, with which AlexNet and others were published: both uniform in +-fan_in^-1/2.

    Weights that were just loaded from a checkpoint stay as they are.
    """
    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    if layer.bias is not None:
        bound = (layer.in_channels * math.prod(layer.kernel_size)) ** -0.5
        init.uniform_(layer.bias, -bound, bound)


class ConvolutionLayer(nn.Module):
    """Convolution (without bias before batch norm), batch norm if wanted, ReLU, max pool if wanted.

    padding: of the convolution, kernel // 2 unless given. pool: edge of the max pool, 0 for none, with its stride.
    """

    def __init__(
        self,
        input_channels: int,
        channels: int,
        batch_norm: bool,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        pool: int = 0,
        pool_stride: int = 2,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.geometry = (kernel, stride, padding, pool, pool_stride)
        self.convolution = nn.Conv2d(input_channels, channels, kernel, stride, padding, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(channels) if batch_norm else None
        self.pool = nn.MaxPool2d(pool, pool_stride) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        """[b, input channels, h, w] -> [b, channels, h', w']."""
        x = self.convolution(as_weight(x, self.convolution.weight))
        x = (x if self.norm is None else self.norm(x)).relu()
        return x if self.pool is None else self.pool(x)

    def map_size(self, size: list[int]) -> list[int]:
        """[h, w] -> [h', w']; an edge of 0 or less: nothing is left."""
        kernel, stride, padding, pool, pool_stride = self.geometry
        size = [(edge + 2 * padding - kernel) // stride + 1 for edge in size]
        return [(edge - pool) // pool_stride + 1 for edge in size] if pool else size


class ConvNet(nn.Module):
    """Encoder of images: [b, input_channels, *image_size] -> feature map [b, state_size, *map_size].

    layers: keyword arguments of :class:`ConvolutionLayer`, ``channels`` at least. Raises ValueError if a layer leaves
    nothing of images of ``image_size``.
    """

    main_input_name = "pixel_values"
    form = StateForm.map

    def __init__(
        self, input_channels: int, image_size: list[int], layers: list[dict[str, Any]], batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.input_shape = [input_channels, *image_size]
        self.state_size, self.map_size = input_channels, list(image_size)
        self.layers = nn.ModuleList()
        for number, arguments in enumerate(layers):
            layer = ConvolutionLayer(self.state_size, batch_norm=batch_norm, **arguments)
            before, self.map_size = self.map_size, layer.map_size(self.map_size)
            if min(self.map_size) < 1:
                raise ValueError(f"layers[{number}] leaves nothing of a map of {before} pixels")
            self.state_size = arguments["channels"]
            self.layers.append(layer)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``pixel_values`` [b, input_channels, *image_size] -> [b, state_size, *map_size]."""
        shape = list(pixel_values.shape)
        if shape[1:] != self.input_shape:
            raise ValueError(f"pixel_values has shape {shape}, expected [batch, {str(self.input_shape)[1:]}")
        x = pixel_values.contiguous(memory_format=torch.channels_last)  # convolutions are quicker in this order
        for layer in self.layers:
            x = layer(x)
        return x
