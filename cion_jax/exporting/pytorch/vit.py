"""ViT with the convolutional IBN stem of TransReID-SSL (arXiv 2111.12084), in PyTorch, as CION-JAX trains it.

model = create("vit_small")
model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6


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


class PatchEmbed(nn.Module):
    """Three convolutions at half resolution, then patches of 8x8 of theirs."""

    def __init__(self, features: int, width: int = 64):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
            IBN(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            IBN(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.proj = nn.Conv2d(width, features, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, H / 16 * W / 16, features]."""
        return self.proj(self.conv(x)).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values."""

    def __init__(self, features: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, C))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, features: int):
        super().__init__()
        self.fc1 = nn.Linear(features, 4 * features)
        self.fc2 = nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and beside a shortcut."""

    def __init__(self, features: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(features, eps=EPS)
        self.attn = Attention(features, heads)
        self.norm2 = nn.LayerNorm(features, eps=EPS)
        self.mlp = Mlp(features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, class token, position embeddings, 12 blocks, LayerNorm; the class token comes out.

    Args:
      features: width.
      heads: of the attention.
      size: (height, width) of the images in pixels, multiples of 16.
    """

    def __init__(self, features: int, heads: int, size: tuple[int, int]):
        super().__init__()
        self.patch_embed = PatchEmbed(features)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, features))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size[0] // 16 * (size[1] // 16), features))
        self.blocks = nn.Sequential(*(Block(features, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(features, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] normalized images of the one size -> [B, features]."""
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        return self.norm(self.blocks(x)[:, 0])


_WIDTHS = {"vit_tiny": (192, 3), "vit_small": (384, 6), "vit_base": (768, 12)}


def create(name: str, size: tuple[int, int] = (256, 128)) -> ViT:
    """The network of a name for images of (height, width), with random weights; KeyError for other names."""
    return ViT(*_WIDTHS[name], size).eval()
