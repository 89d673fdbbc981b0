"""The selective scan as a function of standard ONNX operators, which every `SelectiveScan` node of our files calls.

What it computes is `dacesr.nets.portable.scan_plain`, with three `Scan` loops in place of unrolled steps: over the
steps of all chunks side by side, over the chunks' ends, and over the steps again. Lengths may be dynamic.
"""

from typing import Any

DOMAIN = "dacesr"
NAME = "SelectiveScan"
STEPS = 128  # of a chunk: 64 to 256 are about as fast in onnxruntime on a CPU

# x, dt (b, l, d); A (d, n); B, C (b, l, n) -> y (b, l, d). Within: s steps, k chunks, states (b, k, n, d).
_STEP = """
      dt1 = Unsqueeze (dt_t, two)
      x1 = Unsqueeze (x_t, two)
      B1 = Unsqueeze (B_t, last)
      exponent = Mul (dt1, states)
      decay = Exp (exponent)
      kept = Mul (decay, h)
      new = Mul (B1, x1)
      h_out = Add (kept, new)
"""
_TEXT = f"""
<opset_import: ["" : 18], domain: "{DOMAIN}">
{NAME} (x, dt, A, B, C) => (y)
{{
    none = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    rest = Constant <value_ints = [-1]> ()
    last = Constant <value_ints = [3]> ()
    front = Constant <value_ints = [0, 0, 0, 0]> ()
    s = Constant <value_ints = [{STEPS}]> ()
    batch = Shape <start = 0, end = 1> (x)
    l = Shape <start = 1, end = 2> (x)
    over = Add (l, s)
    rounded = Sub (over, one)
    k = Div (rounded, s)
    whole = Mul (k, s)
    missing = Sub (whole, l)
    pads = Concat <axis = 0> (front, missing, none)
    shape = Concat <axis = 0> (batch, k, s, rest)
    x_padded = Pad (x, pads)
    dt_padded = Pad (dt, pads)
    B_padded = Pad (B, pads)
    C_padded = Pad (C, pads)
    x_chunks = Reshape (x_padded, shape)
    dt_chunks = Reshape (dt_padded, shape)
    B_chunks = Reshape (B_padded, shape)
    C_chunks = Reshape (C_padded, shape)
    xs = Transpose <perm = [2, 0, 1, 3]> (x_chunks)
    dts = Transpose <perm = [2, 0, 1, 3]> (dt_chunks)
    Bs = Transpose <perm = [2, 0, 1, 3]> (B_chunks)
    Cs = Transpose <perm = [2, 0, 1, 3]> (C_chunks)
    states = Transpose <perm = [1, 0]> (A)
    dt_sum = ReduceSum <keepdims = 0> (dts, none)
    dt_sum1 = Unsqueeze (dt_sum, two)
    chunk_exponent = Mul (dt_sum1, states)
    zero = Sub (chunk_exponent, chunk_exponent)
    ends = Scan <num_scan_inputs = 3, body = local
      (float[b, k, n, d] h, float[b, k, d] dt_t, float[b, k, d] x_t, float[b, k, n] B_t) => (float[b, k, n, d] h_out)
    {{{_STEP}    }}> (zero, dts, xs, Bs)
    chunk_decay = Exp (chunk_exponent)
    decays = Transpose <perm = [1, 0, 2, 3]> (chunk_decay)
    ends_turned = Transpose <perm = [1, 0, 2, 3]> (ends)
    begin = ReduceSum <keepdims = 0> (zero, one)
    end, entering_turned = Scan <num_scan_inputs = 2, body = chunks
      (float[b, n, d] h, float[b, n, d] decay, float[b, n, d] reached) => (float[b, n, d] h_out, float[b, n, d] before)
    {{
      kept = Mul (decay, h)
      h_out = Add (kept, reached)
      before = Identity (h)
    }}> (begin, decays, ends_turned)
    entering = Transpose <perm = [1, 0, 2, 3]> (entering_turned)
    finals, ys = Scan <num_scan_inputs = 4, body = full
      (float[b, k, n, d] h, float[b, k, d] dt_t, float[b, k, d] x_t, float[b, k, n] B_t, float[b, k, n] C_t)
      => (float[b, k, n, d] h_out, float[b, k, d] y_t)
    {{{_STEP}
      C1 = Unsqueeze (C_t, last)
      seen = Mul (h_out, C1)
      y_t = ReduceSum <keepdims = 0> (seen, two)
    }}> (entering, dts, xs, Bs, Cs)
    y_turned = Transpose <perm = [1, 2, 0, 3]> (ys)
    y_shape = Concat <axis = 0> (batch, whole, rest)
    y_whole = Reshape (y_turned, y_shape)
    y = Slice (y_whole, none, l, one)
}}
"""


def scan_function() -> Any:
    """The function as an `onnx.FunctionProto`; needs the package onnx."""
    from onnx import parser

    return parser.parse_function(_TEXT)
