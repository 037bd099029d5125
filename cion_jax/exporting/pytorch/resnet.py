"""ResNet and ResNet-IBN-a whose last stage has stride 1, in PyTorch: what CION-JAX trains under these names.

    model = create("resnet50_ibn")
    model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))

A ResNet of another library takes the same weights without complaint and computes something else: its last stage has
stride 2, and weights do not tell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class IBN(nn.Module):
    """InstanceNorm on the first half of the channels, BatchNorm on the others (arXiv 1807.09441)."""

    def __init__(self, width: int):
        super().__init__()
        self.half = width // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(width - self.half)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return torch.cat((self.IN(x[:, : self.half].contiguous()), self.BN(x[:, self.half :].contiguous())), 1)


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: type[nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsample(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, width, H / stride, W / stride]."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: type[nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _downsample(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 width, H / stride, W / stride]."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """Stem, four stages of strides 1, 2, 2 and 1, global average.

    Args:
      block: Basic or Bottleneck.
      depths: blocks per stage.
      ibn: IBN after the first convolution of every block of the first three stages.
    """

    def __init__(self, block: type[Basic] | type[Bottleneck], depths: tuple[int, ...], ibn: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        inputs = 64
        for stage, (depth, width, stride) in enumerate(zip(depths, (64, 128, 256, 512), (1, 2, 2, 1), strict=True), 1):
            norm: type[nn.Module] = IBN if ibn and stage < 4 else nn.BatchNorm2d
            blocks: list[nn.Module] = []
            for number in range(depth):
                blocks.append(block(inputs, width, 1 if number else stride, norm))
                inputs = width * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] normalized images -> [B, features]."""
        x = self.pool(self.bn1(self.conv1(x)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


_DEPTHS: dict[str, tuple[type[Basic] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (Basic, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


def create(name: str) -> ResNet:
    """The network of a name, with random weights, in evaluation mode; KeyError for other names."""
    plain = name.removesuffix("_ibn")
    return ResNet(*_DEPTHS[plain], ibn=plain != name).eval()
