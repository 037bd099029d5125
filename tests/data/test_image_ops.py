"""Image operations against Pillow, and against every stage of the reference augmentation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cion_jax.data import image_ops

JITTER = ("brightness", "contrast", "saturation", "hue")
CANVAS = (320, 160)  # one for all images, so that everything is compiled once per size of view

resized_crop = jax.jit(image_ops.resized_crop, static_argnames="out")
blend, shift_hue, jitter = map(jax.jit, (image_ops.blend, image_ops.shift_hue, image_ops.jitter))
gaussian_blur = jax.jit(image_ops.gaussian_blur, static_argnames="max_sigma")


def _planes(image_HWC) -> jnp.ndarray:
    return jnp.moveaxis(jnp.asarray(image_HWC, jnp.float32), -1, 0)


def _pixels(planes) -> np.ndarray:
    return np.moveaxis(np.asarray(planes), -3, -1)


def _crop(image, box, out, flip=False):
    canvas = np.zeros((*CANVAS, 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    planes = resized_crop(canvas[None], jnp.array(box)[None, None], jnp.array([[flip]]), out=out)
    return _pixels(planes[0, 0])


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def colors() -> np.ndarray:
    """Every color of a 32-level grid, corners of the color cube included."""
    levels = np.linspace(0, 255, 32).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(256, 128, 3)


def test_weights_by_hand():
    # 2 pixels to 4: the first lies at 0.25, cubic(0.25) = 0.8671875 and cubic(1.25) = -0.0703125, then normalized.
    weights = image_ops.resize_weights(jnp.array(1), jnp.array(2), jnp.array(False), 4, 4)
    assert np.allclose(weights[0], [0, 1.0882353, -0.0882353, 0], atol=1e-6)
    assert np.allclose(weights.sum(-1), 1)
    mirrored = image_ops.resize_weights(jnp.array(1), jnp.array(2), jnp.array(True), 4, 4)
    assert np.array_equal(mirrored, weights[::-1])


def test_weights_are_computed_before_they_are_divided():
    """Else XLA compiles the views of a batch for a GPU in 200 instead of 14 s of a core."""
    jaxpr = jax.make_jaxpr(lambda start: image_ops.resize_weights(start, start + 8, start > 0, 4, 16))(np.zeros(2, int))
    barrier = next(e for e in jaxpr.eqns if e.primitive.name == "optimization_barrier")
    division = next(e for e in jaxpr.eqns if e.outvars == jaxpr.jaxpr.outvars)
    assert division.primitive.name == "div"
    assert division.invars[0] is barrier.outvars[0]


def test_a_crop_of_the_same_size_is_the_crop(noise):
    assert np.array_equal(_crop(noise, [7, 3, 20, 30], (20, 30)), noise[7:27, 3:33])
    assert np.array_equal(_crop(noise, [7, 3, 20, 30], (20, 30), True), noise[7:27, 3:33][:, ::-1])


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) > 12, reason="Pillow 13 changes the order of the passes")
@pytest.mark.parametrize("box", [[0, 0, 60, 40], [5, 3, 50, 30], [30, 20, 9, 5], [10, 0, 3, 40]])
@pytest.mark.parametrize("out", [(128, 64), (20, 8)])
def test_resize_equals_pillow(noise, box, out):
    top, left, height, width = box
    crop = Image.fromarray(noise).crop((left, top, left + width, top + height))
    difference = abs(_crop(noise, box, out) - np.asarray(crop.resize(out[::-1], Image.BICUBIC), float))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= max(1, 0.001 * difference.size)  # ties, rounded in fixed point there


def test_grey_levels_equal_pillow(colors):
    assert np.array_equal(image_ops.luma(_planes(colors))[0], Image.fromarray(colors).convert("L"))


@pytest.mark.parametrize("factor", [0.0, 0.61, 0.83, 1.0, 1.21, 1.39])  # round ones make ties
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_blends_equal_pillow(colors, kind, factor):
    dark = colors // 2  # with a mean that is not the middle of all levels
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
    expected = np.asarray(enhance(Image.fromarray(dark)).enhance(factor), float)
    got = _pixels(blend(_planes(dark), jnp.array(kind), jnp.array(factor)))
    difference = abs(got - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002


@pytest.mark.parametrize("off", [-2.4e-7, 2.4e-7])
def test_hue_does_not_depend_on_how_exact_a_division_is(off, monkeypatch):
    """GPUs divide float32 with an error of up to two units in the last place; here every divisor is off by as much."""
    colors = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)

    class Jnp:
        def __getattr__(self, name):
            return getattr(jnp, name)

        def maximum(self, x, least):
            return jnp.maximum(x, least) * np.float32(1 + off)

    expected = image_ops.shift_hue(_planes(colors), jnp.array(0.1))
    monkeypatch.setattr(image_ops, "jnp", Jnp())
    np.testing.assert_array_equal(image_ops.shift_hue(_planes(colors), jnp.array(0.1)), expected)


@pytest.mark.parametrize("turns", [-0.1, -0.037, 0.0, 0.05, 0.1])
def test_hue_equals_pillow(colors, turns):
    hue, saturation, value = Image.fromarray(colors).convert("HSV").split()
    shifted = Image.fromarray((np.asarray(hue).astype(int) + int(turns * 255)).astype(np.uint8))
    expected = np.asarray(Image.merge("HSV", (shifted, saturation, value)).convert("RGB"), float)
    difference = abs(_pixels(shift_hue(_planes(colors), jnp.array(turns))) - expected)
    assert difference.max() <= 6  # one level of hue, where the quotient falls on a whole one
    assert (difference > 0).mean() < 0.005


@pytest.mark.parametrize("sigma", [0.0, 0.13, 0.47, 1.31, 1.97, 3.71])  # round ones make ties
def test_blur_equals_pillow(noise, sigma):
    expected = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(sigma)), float)
    difference = abs(_pixels(gaussian_blur(_planes(noise), jnp.array(sigma), max_sigma=4.0)) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_solarize_equals_pillow(noise):
    expected = np.asarray(ImageOps.solarize(Image.fromarray(noise), 128))
    assert np.array_equal(_pixels(image_ops.solarize(_planes(noise), jnp.array(128.0))), expected)
    assert np.array_equal(_pixels(image_ops.solarize(_planes(noise), jnp.array(256.0))), noise)


@pytest.mark.parametrize("order", [[3, 0, 1, 2], [0, 1, 2, 3], [2, 3, 1, 0], [1, 0, 3, 2]])
def test_jitter_is_its_parts_in_order(noise, order):
    factors = jnp.array([0.7, 1.3, 0.9, 0.06])
    got = jitter(_planes(noise), jnp.array(order), factors, jnp.array(True))
    x = _planes(noise)
    for op in order:
        is_hue = op == image_ops.HUE
        x = shift_hue(x, factors[3]) if is_hue else blend(x, jnp.array(op), factors[op])
    assert np.array_equal(got, x)
    assert np.array_equal(jitter(_planes(noise), jnp.array(order), factors, jnp.array(False)), _planes(noise))


def test_every_image_of_a_batch_has_its_own_parameters(noise):
    batch = jnp.stack([_planes(noise)] * 2)
    kind, factor, sigma = jnp.array([1, 2]), jnp.array([0.5, 1.5]), jnp.array([0.4, 1.9])
    order, apply = jnp.array([[3, 0, 1, 2], [2, 1, 3, 0]]), jnp.array([True, False])
    factors = jnp.array([[0.7, 1.3, 0.9, 0.06]] * 2)
    for op, args in (
        (blend, (kind, factor)),
        (shift_hue, (factor / 10,)),
        (jitter, (order, factors, apply)),
        (lambda x, sigma: gaussian_blur(x, sigma, max_sigma=2.0), (sigma,)),
    ):
        both = op(batch, *args)
        assert all(np.array_equal(both[i], op(batch[i], *(a[i] for a in args))) for i in range(2))
        assert not np.array_equal(both[0], both[1])


def _stage(name: str, x, case):
    """One stage of the reference on planes."""
    op = name.split("_")[1] if name.startswith("jitter") else name
    if op in JITTER[:3]:
        return blend(x, jnp.array(JITTER.index(op)), jnp.array(case["jitter"][op]))
    return {
        "hflip": lambda: x[..., ::-1],
        "hue": lambda: shift_hue(x, jnp.array(case["jitter"]["hue"])),
        "gray": lambda: image_ops.grayscale(x, jnp.array(True)),
        "blur": lambda: gaussian_blur(x, jnp.array(case["blur_radius"]), max_sigma=2.0),
        "solarize": lambda: image_ops.solarize(x, jnp.array(128.0)),
    }[op]()


def _stages(image, case):
    """(name, our pixels) of every stage before the normalization, each made from our previous one."""
    out = (256, 128) if case["view"].startswith("global") else (128, 64)
    x = _planes(_crop(image, case["box_top_left_h_w"], out))
    yield "resized_crop", _pixels(x)
    for name in case["stages"][1:-1]:
        x = _stage(name, x, case)
        yield name, _pixels(x)


def _close(difference) -> bool:
    """The original's rounding after every stage allows no more: 1.5 levels on average, 99% within 6."""
    return difference.mean() <= 1.5 and (difference > 6).mean() <= 0.01


@pytest.mark.parity
@pytest.mark.parametrize("number", range(24))
def test_every_stage_of_the_reference(fixtures, number):
    case = json.loads((fixtures / "aug.json").read_text())["cases"][number]
    with np.load(fixtures / "aug.npz") as arrays:
        reference = {name: arrays[f"{case['tag']}/{name}"].astype(float) for name in case["stages"][:-1]}
        image = arrays[f"image/{case['image']}"]
    for name, ours in _stages(image, case):
        assert _close(abs(ours - reference[name])), name
    # From the reference's previous stage, each operation but the resize is the original's to the level.
    for before, name in zip(case["stages"], case["stages"][1:-1], strict=False):
        difference = abs(_pixels(_stage(name, _planes(reference[before]), case)) - reference[name])
        assert (difference > 0).mean() < 0.005, name
        assert difference.max() <= (6 if "hue" in name else 1), name


@pytest.mark.parity
@pytest.mark.parametrize("number", range(12))
def test_every_stage_on_real_crops(fixtures, data, number):
    case = json.loads((fixtures / "aug_real_crops.json").read_text())["cases"][number]
    image = np.asarray(Image.open(data / "market1501" / case["image"]))
    for name, ours in _stages(image, case):
        samples = ours[case["sample_y"], case["sample_x"]]
        assert _close(abs(samples - np.array(case["samples_rgb"][name]))), name
        assert abs(ours.mean((0, 1)) - case["channel_mean"][name]).max() <= 1.5, name
