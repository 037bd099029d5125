"""Other ways to compute the same network, for one kind of device or another. None is on unless it is asked for.

All but `ROUNDED` give the same numbers (float32: 1e-5). Weights and checkpoints do not know of any.
"""

from __future__ import annotations

from collections.abc import Sequence

from cion_jax.common.typed_config import ConfigError

# Name -> what it does; `benchmarks.gpu_session` measures each.
OPTIONS = {
    "padded_tokens": "tokens are filled up to an even number once, as cuDNN's attention asks, not in every block",
    "class_token_apart": "class tokens lie before the patches, so that 128 and 32 of these fill a TPU's tiles",
    "fp8_products": "a block's products are of 8-bit numbers, quantized by row, but for the gradients of kernels",
}
# Those that change numbers.
ROUNDED = ("fp8_products",)
# Those that lay the rows of all images into one matrix: where images are split over devices, the compiler would move
# the rows between these in every block.
ONE_DEVICE = ("class_token_apart",)
TOKENS = 2  # multiple that `padded_tokens` fills up to


def check_shares(options: Sequence[str], shares: int) -> None:
    """Raises ConfigError where the batch is split over several devices and an option is for one."""
    if shares > 1 and (wrong := [name for name in options if name in ONE_DEVICE]):
        raise ConfigError(f"model.options: {', '.join(wrong)} is for one device, got {shares}; leave it out")


def check(options: Sequence[str]) -> tuple[str, ...]:
    """The options, sorted; raises ConfigError where there is no such one, or one twice."""
    wrong = [name for name in options if name not in OPTIONS]
    if wrong or len(set(options)) < len(options):
        raise ConfigError(f"options are {', '.join(OPTIONS)}, each once; got {', '.join(options)}")
    if {"padded_tokens", "class_token_apart"} <= set(options):
        raise ConfigError("of padded_tokens and class_token_apart one at most: patches alone need no padding")
    return tuple(sorted(options))
