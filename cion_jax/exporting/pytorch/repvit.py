"""RepViT (arXiv 2307.09283) with the branches that it is trained with, in PyTorch, as CION-JAX trains it.

    model = create("repvit_m0_9")
    model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))

Not timm's: its squeeze-and-excite layers end in another function and have other widths, and m1.5 loads there without
complaint.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ConvBN(nn.Sequential):
    """Convolution without bias and BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.add_module("c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))


class RepVGGDW(nn.Module):
    """Depthwise 3x3 with BatchNorm, depthwise 1x1 and identity, summed, then BatchNorm."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = ConvBN(width, width, 3, groups=width)
        self.conv1 = nn.Conv2d(width, width, 1, groups=width)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.bn(self.conv(x) + self.conv1(x) + x)


class SqueezeExcite(nn.Module):
    """Scales every channel by what two 1x1 convolutions make of the channels' means."""

    def __init__(self, width: int):
        super().__init__()
        hidden = int(width / 4 + 2) // 4 * 4
        self.conv_reduce = nn.Conv2d(width, hidden, 1)
        self.conv_expand = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x * functional.hardsigmoid(self.conv_expand(self.conv_reduce(x.mean((2, 3), keepdim=True)).relu()))


class ChannelMixer(nn.Module):
    """Two 1x1 convolutions beside a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.m = nn.Sequential(ConvBN(width, 2 * width), nn.GELU(), ConvBN(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x + self.m(x)


class Block(nn.Module):
    """What mixes pixels, then what mixes channels.

    Args:
      strided: to half the size and other channels.
      excite: squeeze-and-excite behind the depthwise branches.
    """

    def __init__(self, inputs: int, outputs: int, strided: bool, excite: bool):
        super().__init__()
        if strided:
            pointwise = ConvBN(inputs, outputs)
            self.token_mixer = nn.Sequential(ConvBN(inputs, inputs, 3, 2, inputs), nn.Identity(), pointwise)
        else:
            self.token_mixer = nn.Sequential(RepVGGDW(inputs), SqueezeExcite(inputs) if excite else nn.Identity())
        self.channel_mixer = ChannelMixer(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        return self.channel_mixer(self.token_mixer(x))


class RepViT(nn.Module):
    """Stem, four stages, global average.

    Args:
      width: features of the first stage; each stage doubles them.
      depths: blocks per stage, the strided ones between stages not counted.
    """

    def __init__(self, width: int, depths: tuple[int, ...]):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Sequential(ConvBN(3, width // 2, 3, 2), nn.GELU(), ConvBN(width // 2, width, 3, 2))
        ]
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(Block(width, 2 * width, strided=True, excite=False))
                width *= 2
            layers += [Block(width, width, False, n % 2 == 0 and n < depth - 1) for n in range(depth)]
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] normalized images -> [B, features]."""
        return self.features(x).mean((2, 3))


_SIZES = {"repvit_m0_9": (48, (3, 3, 15, 2)), "repvit_m1_0": (56, (3, 3, 15, 2)), "repvit_m1_5": (64, (5, 5, 25, 4))}


def create(name: str) -> RepViT:
    """The network of a name, with random weights, in evaluation mode; KeyError for other names."""
    return RepViT(*_SIZES[name]).eval()
