"""OSNet-IBN and OSNet-AIN (arXiv 1910.06827), in PyTorch: the two OSNets that the package `reid` does not have.

    model = create("osnet_ain_x1_0")
    model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))

The two are one network with different places of InstanceNorm; their public files name the streams of a block, and the
pooling between stages, in two ways.
"""

from __future__ import annotations

from torch import Tensor, nn

STREAMS = 4
WIDTHS = (64, 256, 384, 512)
FEATURES = 512


class Unit(nn.Module):
    """Convolution without bias, then a norm or nothing."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, norm: nn.Module | None = None):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        if norm is not None:
            self.bn = norm

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        x = self.conv(x)
        return self.bn(x) if hasattr(self, "bn") else x


class Lite(nn.Module):
    """A 1x1 convolution, a depthwise 3x3 one, BatchNorm, ReLU."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.bn(self.conv2(self.conv1(x))).relu()


class Stream(nn.Module):
    """Lite convolutions one after another, as OSNet-AIN's files name them."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.layers = nn.Sequential(*(Lite(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.layers(x)


class Gate(nn.Module):
    """Scales every channel by what two 1x1 convolutions make of the channels' means."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1)
        self.fc2 = nn.Conv2d(width // 16, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Block(nn.Module):
    """Four streams, weighted by one gate, beside a shortcut.

    Args:
      instance: where it has InstanceNorm: "", "after" the sum with the shortcut, "inside" in place of a BatchNorm.
      numbered: its streams are named as OSNet-AIN's files do.
    """

    def __init__(self, inputs: int, outputs: int, instance: str, numbered: bool):
        super().__init__()
        width = outputs // 4
        self.conv1 = Unit(inputs, width, norm=nn.BatchNorm2d(width))
        if numbered:
            self.conv2 = nn.ModuleList(Stream(width, depth) for depth in range(1, STREAMS + 1))
        else:
            self.conv2a = Lite(width)
            for letter, depth in zip("bcd", range(2, STREAMS + 1), strict=True):
                setattr(self, f"conv2{letter}", nn.Sequential(*(Lite(width) for _ in range(depth))))
        self.gate = Gate(width)
        self.conv3 = Unit(width, outputs, norm=None if instance == "inside" else nn.BatchNorm2d(outputs))
        if inputs != outputs:
            self.downsample = Unit(inputs, outputs, norm=nn.BatchNorm2d(outputs))
        if instance:
            self.IN = nn.InstanceNorm2d(outputs, affine=True)
        self.instance, self.numbered = instance, numbered

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        y = self.conv1(x).relu()
        streams = self.conv2 if self.numbered else (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        y = self.conv3(sum(self.gate(stream(y)) for stream in streams))
        if self.instance == "inside":
            y = self.IN(y)
        y = y + (self.downsample(x) if hasattr(self, "downsample") else x)
        return (self.IN(y) if self.instance == "after" else y).relu()


class OSNet(nn.Module):
    """Stem, three stages of two blocks, a 1x1 convolution, global average, a linear layer with BatchNorm and ReLU.

    Args:
      blocks: where each of a stage's two blocks has InstanceNorm, per stage.
      numbered: the layout of OSNet-AIN's files.
    """

    def __init__(self, blocks: tuple[tuple[str, str], ...], numbered: bool):
        super().__init__()
        self.numbered = numbered
        self.conv1 = Unit(3, WIDTHS[0], 7, 2, nn.InstanceNorm2d(WIDTHS[0], affine=True))
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        for stage, kinds, inputs, outputs in zip((2, 3, 4), blocks, WIDTHS[:-1], WIDTHS[1:], strict=True):
            first, second = (
                Block(n, outputs, kind, numbered) for n, kind in zip((inputs, outputs), kinds, strict=True)
            )
            unit = Unit(outputs, outputs, norm=nn.BatchNorm2d(outputs))
            between = [nn.Sequential(unit, nn.ReLU(), nn.AvgPool2d(2, 2))] if stage < 4 else []
            setattr(self, f"conv{stage}", nn.Sequential(first, second, *([] if numbered else between)))
            if numbered and between:
                setattr(self, f"pool{stage}", between[0])
        self.conv5 = Unit(WIDTHS[-1], WIDTHS[-1], norm=nn.BatchNorm2d(WIDTHS[-1]))
        self.fc = nn.Sequential(nn.Linear(WIDTHS[-1], FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] normalized images -> [B, 512]."""
        x = self.pool(self.conv1(x).relu())
        for stage in (2, 3, 4):
            x = getattr(self, f"conv{stage}")(x)
            if self.numbered and stage < 4:
                x = getattr(self, f"pool{stage}")(x)
        return self.fc(self.conv5(x).relu().mean((2, 3)))


def create(name: str) -> OSNet:
    """The network of a name, with random weights, in evaluation mode; KeyError for other names."""
    plans = {
        "osnet_ibn_x1_0": ((("after", "after"), ("", ""), ("", "")), False),
        "osnet_ain_x1_0": ((("inside", "inside"), ("", "inside"), ("inside", "")), True),
    }
    return OSNet(*plans[name]).eval()
