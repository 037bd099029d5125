"""The released training step in PyTorch, the rival that `benchmarks.step` shows where torch is installed.

Networks, head, loss, optimizer and teacher are those of the released code by the specification, down to the loss that
forms a pair of every two images of an identity. It gets its views for nothing: normalized ones lie in memory, while
ours cuts and colors them within the step.
"""

from __future__ import annotations

import copy
import time

import torch
import torch.nn.functional as F
from torch import nn

K, GLOBALS, LOCALS = 8, 2, 8


class _IBN(nn.Module):
    """InstanceNorm of one half of the channels, BatchNorm of the other."""

    def __init__(self, width: int):
        super().__init__()
        self.half = width // 2
        self.IN, self.BN = nn.InstanceNorm2d(self.half, affine=True), nn.BatchNorm2d(width - self.half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        instance, batch = torch.split(x, self.half, 1)
        return torch.cat((self.IN(instance.contiguous()), self.BN(batch.contiguous())), 1)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, ibn: bool):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            _IBN(width) if ibn else nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class _ResNet50IBN(nn.Sequential):
    features = 2048

    def __init__(self) -> None:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for stage, (depth, width, stride) in enumerate(((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 1))):
            for block in range(depth):
                layers.append(_Bottleneck(inputs, width, 1 if block else stride, stage < 3))
                inputs = 4 * width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Block(nn.Module):
    def __init__(self, features: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(features, 1e-6), nn.LayerNorm(features, 1e-6)
        self.qkv, self.proj = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.mlp = nn.Sequential(nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class _ViTSmall(nn.Module):
    features = 384

    def __init__(self, depth: int = 12, heads: int = 6):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            _IBN(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, 1, 1, bias=False),
            _IBN(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, self.features, 8, 8),
        )
        self.cls = nn.Parameter(torch.zeros(1, 1, self.features))
        self.positions = nn.Parameter(torch.zeros(1, self.features, 16, 8))
        self.blocks = nn.Sequential(*(_Block(self.features, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(self.features, 1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = (x + F.interpolate(self.positions, x.shape[2:], mode="bicubic")).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(torch.cat((self.cls.expand(len(x), -1, -1), x), 1)))[:, 0]


class _Network(nn.Module):
    """Backbone and head; a list of views [B, 3, H, W], first globals, then locals -> logits [V B, P]."""

    def __init__(self, backbone: nn.Module, prototypes: int):
        super().__init__()
        self.backbone = backbone
        self.mlp = nn.Sequential(
            nn.Linear(backbone.features, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(256, prototypes, bias=False))
        self.last.parametrizations.weight.original0.data.fill_(1)
        self.last.parametrizations.weight.original0.requires_grad = False

    def forward(self, views: list[torch.Tensor]) -> torch.Tensor:
        sizes = [views[:GLOBALS], views[GLOBALS:]]
        features = torch.cat([self.backbone(torch.cat(same)) for same in sizes if same])
        return self.last(F.normalize(self.mlp(features), dim=-1))


def _loss(student: torch.Tensor, teacher: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Every pair of views of every pair of images of an identity, one after another."""
    t = [x.view(-1, K, x.shape[1]) for x in F.softmax((teacher - center) / 0.04, -1).chunk(GLOBALS)]
    s = [x.view(-1, K, x.shape[1]) for x in F.log_softmax(student / 0.1, -1).chunk(GLOBALS + LOCALS)]
    total, pairs = 0, 0
    for u, targets in enumerate(t):
        for v, logs in enumerate(s):
            if u != v:
                own = -(targets * logs).sum(-1).mean()
                others = sum(-(targets[:, i] * logs[:, j]).sum(-1).mean() for i in range(K) for j in range(K) if i != j)
                total, pairs = total + (own + others) / (K * (K - 1) + 1), pairs + 1
    return total / pairs


BACKBONES = {"resnet50_ibn": _ResNet50IBN, "vit_small": _ViTSmall}


def seconds(name: str, batch: int, prototypes: int, steps: int) -> list[float]:
    """Seconds of every step but the first, of one of BACKBONES."""
    student = _Network(BACKBONES[name](), prototypes)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW((p for p in student.parameters() if p.requires_grad), 1e-4, weight_decay=0.04)
    center = torch.zeros(prototypes)
    views = [torch.randn(batch, 3, 256, 128) for _ in range(GLOBALS)]
    views += [torch.randn(batch, 3, 128, 64) for _ in range(LOCALS)]
    durations = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        with torch.no_grad():
            targets = teacher(views[:GLOBALS])
        loss = _loss(student(views), targets, center)
        optimizer.zero_grad()
        loss.backward()
        for parameter in student.parameters():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, 3.0)
        optimizer.step()
        with torch.no_grad():
            center = 0.9 * center + 0.1 * targets.mean(0)
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.mul_(0.996).add_(theirs, alpha=0.004)
        durations.append(time.perf_counter() - began)
    return durations[1:]
