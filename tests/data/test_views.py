"""Views: what is drawn, in distribution, and that it does not depend on where it is made."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.common import typed_config
from cion_jax.common.preprocessing import IMAGENET_MEAN as MEAN
from cion_jax.common.preprocessing import IMAGENET_STD as STD
from cion_jax.data.views import ViewParams, ViewsConfig, ViewSpec, draw, make_views, render

DRAWS = 20_000
SIGMAS = 5  # of the sampling error
SMALL = ViewsConfig(ViewSpec(32, 16), ViewSpec(32, 16, blur=0.1, solarize=0.2), ViewSpec(16, 8, scale=(0.05, 0.8)), 3)

jit_draw = jax.jit(draw, static_argnames=("specs", "first_view"))
jit_render = jax.jit(render, static_argnames="specs")
# Compiled as in use: without optimizations two programs differ in the last digit, and a level of gray flips.
AS_IN_USE = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}
jit_views = jax.jit(make_views, static_argnames="config", compiler_options=AS_IN_USE)


def _sizes(count, height=256, width=128):
    return jnp.full((count, 2), jnp.array([height, width]), jnp.int32)


@pytest.fixture(scope="module")
def drawn() -> ViewParams:
    """Both global views and a local one of 20,000 images, drawn with the paper's settings."""
    config = ViewsConfig()
    params = jit_draw(jax.random.key(0), _sizes(DRAWS), specs=(*config.globals, config.local))
    return jax.tree.map(np.asarray, params)


def _is_rate(values, expected, draws=DRAWS):
    error = math.sqrt(max(expected * (1 - expected), 1e-12) / draws)
    return abs(np.mean(values) - expected) <= SIGMAS * error


def _is_uniform(values, low, high):
    levels = np.linspace(0, 1, 21)[1:-1]
    below = [(values <= low + (high - low) * p).mean() for p in levels]
    error = np.sqrt(levels * (1 - levels) / len(values))
    return values.min() >= low and values.max() <= high and np.all(abs(below - levels) <= SIGMAS * error)


def test_probabilities_are_the_papers(drawn):
    for view, (blur, solarize) in enumerate([(1.0, 0.0), (0.1, 0.2), (0.5, 0.0)]):
        assert _is_rate(drawn.flip[:, view], 0.5)
        assert _is_rate(drawn.jitter[:, view], 0.8)
        assert _is_rate(drawn.gray[:, view], 0.2)
        assert _is_rate(drawn.sigma[:, view] > 0, blur)
        assert _is_rate(drawn.threshold[:, view] == 128, solarize)
        assert set(np.unique(drawn.threshold[:, view])) <= {128.0, 256.0}


def test_strengths_are_uniform_in_the_papers_ranges(drawn):
    for op, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
        assert _is_uniform(drawn.factors[:, 0, op], np.float32(low), np.float32(high))
    assert _is_uniform(drawn.sigma[:, 0], np.float32(0.1), 2.0)


def test_all_orders_of_the_jitter_are_as_frequent(drawn):
    orders, counts = np.unique(drawn.order[:, 0], axis=0, return_counts=True)
    assert len(orders) == 24
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders.tolist())
    assert all(_is_rate(count / DRAWS, 1 / 24) for count in counts)


def test_views_and_settings_are_drawn_independently(drawn):
    columns = np.stack(
        [
            *drawn.flip.T,
            *drawn.jitter.T,
            *drawn.gray.T,
            *drawn.factors[:, :2].reshape(DRAWS, -1).T,
            *drawn.box[:, :, 2].T,
            drawn.sigma[:, 0],
        ]
    )
    correlation = np.corrcoef(columns.astype(float)) - np.eye(len(columns))
    assert abs(correlation).max() < SIGMAS / math.sqrt(DRAWS)


@pytest.mark.parity
@pytest.mark.parametrize("image", ["256x128", "128x64", "300x100", "200x180"])
@pytest.mark.parametrize("scale", ["0.8-1.0", "0.05-0.8"])
def test_crops_are_distributed_as_the_references(fixtures, image, scale):
    spec = json.loads((fixtures / "crop_distribution.json").read_text())
    case = spec["cases"][f"image{image}_scale{scale}"]
    height, width = map(int, image.split("x"))
    view = ViewSpec(scale=tuple(map(float, scale.split("-"))), ratio=tuple(spec["ratio"]))
    box = np.asarray(jit_draw(jax.random.key(1), _sizes(DRAWS, height, width), specs=(view,)).box)[:, 0]
    assert np.all(box[:, :2] >= 0)
    assert np.all(box[:, :2] + box[:, 2:] <= [height, width])
    _, _, h, w = box.T.astype(float)
    area, ratio = h * w / (height * width), w / h
    for name, values in (("area_fraction", area), ("width_over_height", ratio)):
        _same_quantiles(values, case[name], case["quantile_levels"])
    _same_means(box, case, height, width)
    fallback = (box == case["fallback_box"]).all(1).mean()
    expected = case["fallback_fraction"]
    assert fallback >= expected - SIGMAS * math.sqrt(2 * expected * (1 - expected) / DRAWS)
    if expected == 1:
        assert fallback == 1


def _same_quantiles(values, quantiles, levels):
    """Two samples of one distribution: at each quantile the shares below agree; ties make that an interval."""
    for level, quantile in zip(levels, quantiles, strict=True):
        error = SIGMAS * math.sqrt(2 * max(level * (1 - level), 1 / DRAWS) / DRAWS)
        assert (values < quantile - 1e-6).mean() <= level + error
        assert (values <= quantile + 1e-6).mean() >= level - error


def _same_means(box, case, height, width):
    top, left, h, w = box.T.astype(float)
    with np.errstate(invalid="ignore"):
        shares = {"top_over_free_mean": top / (height - h), "left_over_free_mean": left / (width - w)}
    shares |= {"height_mean": h, "width_mean": w, "area_fraction_mean": h * w / (height * width)}
    shares |= {"top_zero_fraction": top == 0, "left_zero_fraction": left == 0}
    shares |= {"full_width_fraction": w == width, "full_height_fraction": h == height}
    for name, values in shares.items():
        known = values[np.isfinite(values)].astype(float)
        if case[name] is None or not len(known):
            continue
        error = SIGMAS * max(known.std(), math.sqrt(1 / DRAWS)) * math.sqrt(2 / len(known))
        assert abs(known.mean() - case[name]) <= error, name


def test_a_view_depends_on_key_place_and_number_alone():
    config = ViewsConfig()
    key = jax.random.key(3)
    eight = jit_draw(key, _sizes(8), specs=config.globals)
    four = jit_draw(key, _sizes(4), specs=config.globals)
    second = jit_draw(key, _sizes(4), specs=(config.global_2,), first_view=1)
    other = jit_draw(jax.random.key(4), _sizes(4), specs=config.globals)
    for name in ViewParams._fields:
        a, b, c = (np.asarray(getattr(p, name)) for p in (eight, four, second))
        assert np.array_equal(a[:4], b)
        assert np.array_equal(b[:, 1:], c)
    assert not np.array_equal(four.factors, other.factors)
    assert len(np.unique(np.asarray(eight.factors).reshape(16, -1), axis=0)) == 16


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (8, 48, 32, 3), np.uint8)
    size = np.array([[48, 24], [40, 32], [30, 15], [48, 32]] * 2, np.int32)
    return jnp.asarray(image), jnp.asarray(size)


def test_shapes_and_levels(batch):
    global_B2HWC, local_BLHWC = jit_views(jax.random.key(0), *batch, config=SMALL)
    assert (global_B2HWC.shape, local_BLHWC.shape) == ((8, 2, 32, 16, 3), (8, 3, 16, 8, 3))
    assert global_B2HWC.dtype == local_BLHWC.dtype == jnp.float32
    for views in (global_B2HWC, local_BLHWC):
        levels = (np.asarray(views) * STD + MEAN) * 255
        assert abs(levels - levels.round()).max() < 1e-3
        assert levels.min() > -0.5
        assert levels.max() < 255.5


def test_local_views_are_drawn_apart_from_the_global_ones(batch):
    spec = ViewSpec(16, 8)
    global_B2HWC, local_BLHWC = jit_views(jax.random.key(0), *batch, config=ViewsConfig(spec, spec, spec, 2))
    views = np.concatenate([global_B2HWC, local_BLHWC], 1).reshape(8 * 4, -1)
    assert len(np.unique(views, axis=0)) == 8 * 4


def test_no_local_views(batch):
    config = ViewsConfig(SMALL.global_1, SMALL.global_2, SMALL.local, 0)
    global_B2HWC, local_BLHWC = jit_views(jax.random.key(0), *batch, config=config)
    assert local_BLHWC.shape == (8, 0, 16, 8, 3)
    assert np.array_equal(global_B2HWC, jit_views(jax.random.key(0), *batch, config=SMALL)[0])


def test_what_lies_beside_the_image_is_never_seen(batch):
    image, size = batch
    rows, columns = np.ogrid[:48, :32]
    inside = (rows < size[:, 0, None, None]) & (columns < size[:, 1, None, None])
    blank = jnp.where(inside[..., None], image, 0)
    for a, b in zip(*(jit_views(jax.random.key(0), x, size, config=SMALL) for x in (image, blank)), strict=True):
        assert np.array_equal(a, b)


def test_eight_devices_make_the_views_of_one(batch):
    sharding = NamedSharding(Mesh(np.array(jax.devices()), "data"), P("data"))
    spread = jit_views(jax.random.key(0), *jax.device_put(batch, sharding), config=SMALL)
    for one, many in zip(jit_views(jax.random.key(0), *batch, config=SMALL), spread, strict=True):
        assert many.sharding.is_equivalent_to(sharding, many.ndim)
        assert np.array_equal(one, many)


def _params(case) -> ViewParams:
    jitter = case["jitter"] or {"order": [0, 1, 2, 3], "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
    factors = [jitter[name] for name in ("brightness", "contrast", "saturation", "hue")]
    values = (
        jnp.array(case["box_top_left_h_w"]),
        jnp.array(case["hflip"]),
        jnp.array(case["jitter"] is not None),
        jnp.array(jitter["order"]),
        jnp.array(factors, jnp.float32),
        jnp.array(case["gray"]),
        jnp.array(case["blur_radius"] or 0.0),
        jnp.array(128.0 if case["solarize"] else 256.0),
    )
    return ViewParams(*(value[None, None] for value in values))


@pytest.mark.parity
@pytest.mark.parametrize("number", range(24))
def test_rendered_views_equal_the_reference(fixtures, number):
    case = json.loads((fixtures / "aug.json").read_text())["cases"][number]
    config = ViewsConfig()
    spec = config.global_2 if case["view"].startswith("global") else ViewSpec(128, 64, solarize=0.2)
    with np.load(fixtures / "aug.npz") as arrays:
        image = arrays[f"image/{case['image']}"]
        reference = arrays[f"{case['tag']}/{case['stages'][-2]}"].astype(float)
        normalized = arrays[f"{case['tag']}/normalised"] if case["normalised_stored"] else None
    canvas = np.zeros((1, 320, 160, 3), np.uint8)
    canvas[0, : image.shape[0], : image.shape[1]] = image
    ours = np.asarray(jit_render(canvas, _params(case), specs=(spec,)))[0, 0]
    difference = abs((ours * STD + MEAN) * 255 - reference)
    assert difference.mean() <= 1.5
    assert (difference > 6.001).mean() <= 0.01
    assert abs(ours.mean((0, 1)) - case["normalised_channel_mean"]).max() < 1.5 / 255 / min(STD)
    if normalized is not None:
        exact = (reference / 255 - MEAN) / STD
        assert abs(exact - np.moveaxis(normalized, 0, -1)).max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": 1.5}, r"config.flip must be in \[0, 1\]"),
        ({"scale": (0.9, 0.5)}, "scale is a rising pair"),
        ({"sigma": (0.0, 1.0)}, r"config.sigma must be in \(0, 100\]"),
        ({"scale": (0.5, 1.2)}, r"config.scale must be in \(0, 1\]"),
        ({"hue": 0.7}, r"config.hue must be in \[0, 0\.5\]"),
        ({"width": 0}, r"config.width must be in \[1, 4096\]"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        typed_config.freeze(ViewSpec, settings)


def test_views_that_are_no_batch():
    with pytest.raises(ValueError, match="256 x 128 and 384 x 128"):
        ViewsConfig(global_2=ViewSpec(height=384))
    with pytest.raises(ValueError, match="local_views"):
        typed_config.freeze(ViewsConfig, {"local_views": -1})
