"""Memory traffic and products of compiled programs, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from cion_jax.distributed import hlo_products
from cion_jax.distributed.hlo_traffic import Program

# As libtpu writes it: S(1) is on-chip memory, T(8,128) a tile, the loop's condition has the only limit.
PROGRAM = """
HloModule jit_f, is_scheduled=true

%update (p0: f32[5,8,128], p1: s32[], p2: f32[8,128]) -> f32[5,8,128] {
  %p0 = f32[5,8,128]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %p2 = f32[8,128]{1,0:T(8,128)} parameter(2)
  %b = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%p2)
  %c = s32[]{:T(128)} constant(0)
  ROOT %dus = f32[5,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%p0, %b, %p1, %c, %c)
}

%within (r0: bf16[64,128], r1: s32[]) -> bf16[8,128] {
  %r0 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %r1 = s32[]{:T(128)} parameter(1)
  ROOT %f = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%r0, %r1), calls=%part
}

%part (q0: bf16[64,128], q1: s32[]) -> bf16[8,128] {
  %q0 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %q1 = s32[]{:T(128)} parameter(1)
  %z = s32[]{:T(128)} constant(0)
  ROOT %ds = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%q0, %q1, %z), dynamic_slice_sizes={8,128}
}

%body (t: (s32[], f32[5,8,128], f32[8,128])) -> (s32[], f32[5,8,128], f32[8,128]) {
  %t = (s32[]{:T(128)}, f32[5,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %a = f32[5,8,128]{2,1,0:T(8,128)} get-tuple-element(%t), index=1
  %v = f32[8,128]{1,0:T(8,128)} get-tuple-element(%t), index=2
  %n = f32[5,8,128]{2,1,0:T(8,128)} fusion(%a, %i, %v), calls=%update, metadata={op_name="jvp(norm)/dus"}
  ROOT %r = (s32[]{:T(128)}, f32[5,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %n, %v)
}

%condition (t.1: (s32[], f32[5,8,128], f32[8,128])) -> pred[] {
  %t.1 = (s32[]{:T(128)}, f32[5,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)S(1)} get-tuple-element(%t.1), index=0
  %limit = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: f32[100,3], w: bf16[64,128], s: (s32[], f32[5,8,128], f32[8,128])) -> f32[100,3] {
  %x = f32[100,3]{1,0:T(8,128)} parameter(0)
  %w = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %s = (s32[]{:T(128)}, f32[5,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}) parameter(2)
  %k = s32[]{:T(128)S(1)} constant(7)
  %copy-start = (f32[100,3]{1,0:T(8,128)S(1)}, f32[100,3]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = f32[100,3]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((bf16[64,128]{1,0:T(8,128)(2,1)}), bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, u32[]) slice-start(%w)
  %slice-done = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start)
  %taken = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%w, %k), calls=%within, metadata={op_name="jit(norm)/attention/s"}
  %loop = (s32[], f32[5,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}) while(%s), condition=%condition, body=%body
  %conv = bf16[8,8]{1,0:S(1)} convolution(%taken, %slice-done), dim_labels=bf_oi->bf, metadata={op_name="attention"}
  %gather = f32[400,3]{1,0:T(8,128)} all-gather(%x), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %out = f32[100,3]{1,0:T(8,128)} add(%copy-done, %x), metadata={op_name="jit(f)/mlp/add"}
}
"""
TILED = 104 * 128 * 4  # of [100, 3]: rows filled up to 8, columns to 128


def test_a_program_for_a_tpu_by_hand():
    program = Program(PROGRAM)
    parts = program.by_scope(("attention", "mlp", "norm"))
    # Of both slices only what is taken; both operands of the product lie on the chip, as does its result. The slice
    # that is copied to the chip has no name of its own: it counts where it is read.
    assert parts["attention"] == (2 * 8 * 128 * 2, 2 * 8 * 8 * 128)
    # Five times: what is written in place, the row that is written, the number of the row.
    assert parts["norm"] == (5 * (2 * 8 * 128 * 4 + 4), 0)
    # One operand is copied to the chip before, which reads it once; the other and the result lie in main memory.
    assert parts["mlp"] == (3 * TILED, 0)
    # The all-gather is counted elsewhere.
    assert "other" not in parts
    assert program.unknown_loops == 0
    assert program.bytes() == sum(size for size, _ in parts.values())


def test_a_loop_without_a_limit_is_said():
    program = Program(PROGRAM.replace("constant(5)", "add(%i.1, %i.1)"))
    program.bytes()
    assert program.unknown_loops == 1


def test_a_product_by_hand():
    x, w = jnp.zeros((64, 32)), jnp.zeros((32, 16))
    program = Program(jax.jit(jnp.matmul).lower(x, w).compile().as_text())
    assert program.flops() == 2 * 64 * 32 * 16
    assert program.bytes() == 4 * (64 * 32 + 32 * 16 + 64 * 16)


def test_a_loop_counts_as_often_as_it_runs():
    x, w = jnp.zeros((64, 32)), jnp.zeros((32, 32))

    def five(x, w):
        with jax.named_scope("mlp"):
            return jax.lax.fori_loop(0, 5, lambda _, x: x @ w, x)

    program = Program(jax.jit(five).lower(x, w).compile().as_text())
    assert program.unknown_loops == 0
    assert program.by_scope(("mlp",))["mlp"][1] == program.flops() == 5 * 2 * 64 * 32 * 32


@pytest.mark.parametrize(("stride", "padding", "pairs"), [(1, 1, 4 * 3 - 2), (2, 1, 2 * 3 - 1), (2, 0, 3)])
def test_a_convolution_counts_the_pixels_that_it_meets(stride, padding, pairs):
    """Along one axis of 4 pixels, pairs of an output and one of three taps that is no margin."""
    x, kernel = jnp.zeros((2, 4, 4, 8)), jnp.zeros((3, 3, 8, 16))

    def convolve(x, kernel):
        pads = ((padding, padding),) * 2
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    program = Program(jax.jit(convolve).lower(x, kernel).compile().as_text())
    assert program.flops() == 2 * 2 * 16 * 8 * pairs**2


IMAGES = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f"
CONTRACTED = '"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}'
WEIGHTS = '"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "4", "10", "10"]}'
# As XLA writes it for an NVIDIA GPU: the last result of a library's call is a place to work in.
LIBRARIES = f"""
ENTRY %main (a: f32[4,8], b: f32[8,16], x: f32[2,6,5,3], k: f32[7,3,3,3], q: bf16[2,10,4,8]) -> f32[4,16] {{
  %a = f32[4,8]{{1,0}} parameter(0)
  %b = f32[8,16]{{1,0}} parameter(1)
  %x = f32[2,6,5,3]{{3,2,1,0}} parameter(2)
  %k = f32[7,3,3,3]{{3,2,1,0}} parameter(3)
  %q = bf16[2,10,4,8]{{3,2,1,0}} parameter(4)
  %dot = (f32[4,16]{{1,0}}, s8[4096]{{0}}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", \
metadata={{op_name="jit(f)/mlp/dot"}}, backend_config={{{CONTRACTED}}}
  %conv = (f32[2,6,5,7]{{3,2,1,0}}, u8[512]{{0}}) custom-call(%x, %k), {IMAGES}, \
custom_call_target="__cudnn$convForward"
  %y = f32[2,6,5,7]{{3,2,1,0}} get-tuple-element(%conv), index=0
  %of_k = (f32[7,3,3,3]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %y), {IMAGES}, \
custom_call_target="__cudnn$convBackwardFilter"
  %of_x = (f32[2,6,5,3]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%y, %k), {IMAGES}, \
custom_call_target="__cudnn$convBackwardInput"
  %mixed = (bf16[2,4,10,8]{{3,1,2,0}}, u8[0]{{0}}) custom-call(%q, %q, %q), \
custom_call_target="__cudnn$fmhaSoftmax", backend_config={{{WEIGHTS}}}
  ROOT %result = f32[4,16]{{1,0}} get-tuple-element(%dot), index=0
}}
"""


def test_products_of_libraries_by_hand():
    program = Program(LIBRARIES)
    product = 2 * 4 * 8 * 16
    # A margin meets no pixel: of 6 x 5 outputs 16 x 13 pairs of a row and a tap, and of a column and one, remain.
    convolution = 2 * 2 * 7 * 3 * 16 * 13
    attention = 2 * 2 * (2 * 4 * 10 * 10) * 8
    assert program.flops() == product + 3 * convolution + attention
    assert program.by_scope(("mlp",))["mlp"] == (4 * (4 * 8 + 8 * 16 + 4 * 16), product)  # no place to work in


@pytest.mark.parametrize("call", ["convForward", "convForwardGraph", "convBiasActivationForward"])
def test_every_forward_convolution_of_cudnn_counts(call):
    text = f'{IMAGES}, custom_call_target="__cudnn${call}"'
    found = hlo_products.flops("custom-call", text, [(2, 6, 5, 3), (7, 3, 3, 3)], (2, 6, 5, 7))
    assert found == 2 * 2 * 7 * 3 * 16 * 13
