// The causal depth-wise convolution of Mamba and the SiLU behind it, forward and backward; part of kernels.cpp.
//
//   s_t = bias + sum_j w_j x_(t-j);  y_t = s_t sigmoid(s_t)         w_j: weight of the token j before, 0 <= j < taps
//   d_t = dy_t sigmoid(s_t) (1 + s_t (1 - sigmoid(s_t)));  dx_t = sum_j w_j d_(t+j);  dw_j = sum_t d_(t+j) x_t
#pragma once

namespace {

// (width, taps) <-> [vector][taps][W], the last tap first.
void gather_taps(float* to, const float* from, int64_t width, int64_t taps) {
    for (int64_t c = 0; c < up(width); c += W)
        for (int64_t j = 0; j < taps; ++j)
            for (int64_t i = 0; i < W; ++i)
                to[(c * taps) + j * W + i] = c + i < width ? from[(c + i) * taps + taps - 1 - j] : 0.f;
}
void scatter_taps(float* to, const float* from, int64_t width, int64_t taps) {
    for (int64_t c = 0; c < width; ++c)
        for (int64_t j = 0; j < taps; ++j) to[c * taps + taps - 1 - j] = from[c / W * W * taps + j * W + c % W];
}

INLINE vf convolve(const ConvArgs& a, const Window& w, int t, const float* weight, vf bias) {
    const int64_t taps = least(a.taps, w.t0 + t + 1);
    vf sum = load(weight) * w.get(a.x, t) + bias;
    for (int64_t j = 1; j < taps; ++j) sum += load(weight + j * W) * w.read(a.x, t - int(j));
    return sum;
}

void conv_forward(const ConvArgs& a, int64_t unit, float* workspace) {
    const Slice s = slice_of(a.d, a.slices, unit);
    gather_taps(workspace, a.weight + s.first * a.taps, s.width, a.taps);
    for (int64_t t0 = 0; t0 < a.l; t0 += kBlock) {
        const int tokens = int(least(kBlock, a.l - t0));
        for (int64_t c = 0; c < s.width; c += W) {
            const Window w{s.image, t0, s.first + c, int(least(W, s.width - c)), kBlock};
            const vf bias = a.bias ? load(a.bias, w.channel, false, w.lanes) : vf{};
            for (int t = 0; t < tokens; ++t) {
                const vf sum = convolve(a, w, t, workspace + c * a.taps, bias);
                w.put(a.out, t, sum * sigmoid(sum));
            }
        }
    }
}

// Blocks from the last to the first; `slope` holds d of a block and of the taps - 1 tokens behind it.
void conv_backward(const ConvArgs& a, const ConvGrads& g, int64_t unit, float* workspace) {
    const Slice s = slice_of(a.d, a.slices, unit);
    const int64_t taps = a.taps, weights = up(s.width) * taps, rows = kBlock + taps - 1;
    Arena arena{workspace};
    float *weight = arena.take(weights), *dweight = arena.take(weights), *dbias = arena.take(up(s.width));
    float* slopes = arena.take(up(s.width) * rows);
    gather_taps(weight, a.weight + s.first * taps, s.width, taps);
    std::memset(dweight, 0, sizeof(float) * weights);
    std::memset(dbias, 0, sizeof(float) * up(s.width));
    std::memset(slopes, 0, sizeof(float) * up(s.width) * rows);
    for (int64_t t0 = (a.l - 1) / kBlock * kBlock; t0 >= 0; t0 -= kBlock) {
        const int tokens = int(least(kBlock, a.l - t0));
        for (int64_t c = 0; c < s.width; c += W) {
            const Window w{s.image, t0, s.first + c, int(least(W, s.width - c)), -kBlock};
            const vf bias = a.bias ? load(a.bias, w.channel, false, w.lanes) : vf{};
            float *slope = slopes + c * rows, *dw = dweight + c * taps;
            std::memmove(slope + tokens * W, slope, sizeof(float) * (taps - 1) * W);
            vf d_bias = load(dbias + c);
            for (int t = 0; t < tokens; ++t) {
                const vf sum = convolve(a, w, t, weight + c * taps, bias), open = sigmoid(sum);
                const vf d = w.get(g.dout, t) * open * (1.f + sum * (1.f - open));
                store(slope + t * W, d);
                d_bias += d;
            }
            store(dbias + c, d_bias);
            for (int t = 0; t < tokens; ++t) {
                const vf x = w.read(a.x, t);
                vf sum{};
                for (int64_t j = 0; j < taps; ++j) {
                    const vf d = load(slope + (t + j) * W);
                    sum += load(weight + c * taps + j * W) * d;
                    store(dw + j * W, load(dw + j * W) + x * d);
                }
                w.put(g.dx, t, sum);
            }
        }
    }
    const int64_t channel = s.image * a.d + s.first;
    scatter_taps(g.dweight + channel * taps, dweight, s.width, taps);
    std::memcpy(g.dbias + channel, dbias, sizeof(float) * s.width);
}

size_t conv_workspace(const ConvArgs& a, bool with_backward) {
    const int64_t width = widest_slice(a.d, a.slices), rows = kBlock + a.taps - 1;
    return size_t(with_backward ? width * (2 * a.taps + 1 + rows) : width * a.taps);
}

}  // namespace
