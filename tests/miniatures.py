"""One small member of every family, as cheap to compile as its parts allow; registered as toy_FAMILY."""

from functools import partial
from unittest import mock

from cion_jax.models import convnext, edgenext, fastvit, ghostnet, registry
from cion_jax.models.fastvit import FastViT
from cion_jax.models.ghostnet import GhostNet
from cion_jax.models.osnet import OSNet
from cion_jax.models.repvit import RepViT
from cion_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from cion_jax.models.swin import Swin
from cion_jax.models.vit import ViT
from cion_jax.models.volo import VOLO


class _GhostNet(GhostNet):
    """Two blocks, the second strided and with squeeze-and-excite."""

    def __init__(self, **kw):
        with mock.patch.object(ghostnet, "STAGES", ghostnet.STAGES[2:4]):
            super().__init__(0.25, **kw)


class _FastViT(FastViT):
    """Two narrow stages, the second with attention."""

    def __init__(self, **kw):
        with mock.patch.multiple(fastvit, WIDTHS=(16, 32), FEATURES=64):
            super().__init__((1, 1), True, **kw)


MINIATURES = {
    "toy_convnext": partial(convnext.ConvNeXt, (1, 1), (8, 16), convnext._block, drop_path=0.1),
    "toy_edgenext": partial(convnext.ConvNeXt, (1, 2), (8, 16), partial(edgenext._block, heads=2)),
    "toy_fastvit": partial(_FastViT),
    "toy_ghostnet": partial(_GhostNet),
    "toy_osnet": partial(OSNet, (8, 64, 64, 64), (("", "after"), ("", "inside"), ("", "")), True),
    "toy_repvit": partial(RepViT, 16, (2, 1)),
    "toy_resnet": partial(ResNet, BasicBlock, (1, 1, 1, 1)),
    "toy_resnet_ibn": partial(ResNet, Bottleneck, (1, 1, 1, 1), True),
    "toy_swin": partial(Swin, (2, 1), 32),
    "toy_vit": partial(ViT, 32, 2, depth=1),
    "toy_volo": partial(VOLO, (1, 1), 64),
}


def register() -> None:
    """Makes them backbones like any other, for the trainer."""
    registry.BACKBONES.register_all(MINIATURES)
