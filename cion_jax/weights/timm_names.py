"""What timm calls a backbone and its tensors, for files that go there and come back.

Where the original code and timm named the same layers differently, `renamed` says which is which; no tensor changes.
Only networks are here of which timm computes the same features. It loads two families without complaint and computes
something else: ResNet (its last stage has stride 2) and RepViT (its squeeze-and-excite layers end in another function).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Rules = tuple[tuple[str, str], ...]
_META = (  # ConvNeXt and EdgeNeXt
    (r"^downsample_layers\.0\.", "stem."),
    (r"^stages\.(\d+)\.(\d+)", r"stages.\1.blocks.\2"),
    (r"^downsample_layers\.(\d+)\.(\d+)", r"stages.\1.downsample.\2"),
    ("dwconv", "conv_dw"),
    ("pwconv", "mlp.fc"),
    (r"^norm\.", "head.norm."),
)
_FASTVIT = (
    ("^patch_embed", "stem"),
    ("rbr_conv", "conv_kxk"),
    ("rbr_scale", "conv_scale"),
    ("rbr_skip", "identity"),
    ("conv_exp", "final_conv"),
    ("lkb_origin", "large_conv"),
    ("convffn", "mlp"),
    (r"se\.reduce", "se.fc1"),
    (r"se\.expand", "se.fc2"),
    (r"layer_scale_(\d)", r"layer_scale_\1.gamma"),
    (r"layer_scale$", "layer_scale.gamma"),
)
_FASTVIT_ENDS = (1, 3, 5)  # of its flat list of layers: what brings the next stage to half the size


@dataclass(frozen=True)
class Timm:
    """A backbone in timm.

    Attributes:
      architecture: its name there.
      sized: it is built for one size of images, so that its builder has to be told.
      options: of its builder beside the size.
      rename: one of our names -> timm's; an empty one where timm does not store that tensor.
    """

    architecture: str
    sized: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    rename: Callable[[str], str] = str

    def arguments(self, size: tuple[int, int]) -> dict[str, Any]:
        """What `timm.create_model` needs beside the name, for images of (height, width)."""
        return ({"img_size": list(size)} if self.sized else {}) | dict(self.options)

    def renamed(self, names: Iterable[str]) -> dict[str, str]:
        """Our names -> timm's, without those that timm does not store."""
        return {ours: theirs for ours in names if (theirs := self.rename(ours))}


def _replaced(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _of_swin(name: str) -> str:
    """timm halves the size before a stage, the original after one; it makes the index of positions anew."""
    if name.endswith("relative_position_index"):
        return ""
    name = re.sub(r"^norm3\.", "norm.", name)
    return re.sub(r"^layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)


def _of_fastvit(name: str) -> str:
    name = _replaced(name, _FASTVIT)
    match = re.match(r"network\.(\d+)\.(proj\.|pe\.)?", name)
    if not match:
        return name
    stage = bisect_right(_FASTVIT_ENDS, int(match[1]))
    parts = {"proj.": "downsample.proj.", "pe.": "pos_emb.pos_enc."}
    inside = parts[match[2]] if match[2] else "blocks."
    return f"stages.{stage}.{inside}{name[match.end() :]}"


def _of_meta(name: str) -> str:
    return _replaced(name, _META)


# Windows at the border are filled up with zeros, as the original does; timm's own way is to make them smaller.
_SWIN = (("window_size", 8), ("always_partition", True))
TIMM: dict[str, Timm] = {
    **{f"convnext_{size}": Timm(f"convnext_{size}", rename=_of_meta) for size in ("tiny", "small", "base")},
    **{f"edgenext_{size}": Timm(f"edgenext_{size}", rename=_of_meta) for size in ("x_small", "small", "base")},
    **{f"fastvit_{size}": Timm(f"fastvit_{size}", rename=_of_fastvit) for size in ("s12", "sa12", "sa24")},
    **{f"ghostnet_{size}": Timm(f"ghostnet_{size.replace('_', '')}0") for size in ("0_5", "1_0", "1_3")},
    **{
        f"swin_{size}": Timm(f"swin_{size}_patch4_window7_224", True, _SWIN, _of_swin)
        for size in ("tiny", "small", "base")
    },
    **{f"volo_{size}": Timm(f"volo_{size}_224", True) for size in ("d1", "d2", "d3")},
    **{f"vit_{size}_patch16": Timm(f"vit_{size}_patch16_224", True) for size in ("small", "base", "large")},
}
