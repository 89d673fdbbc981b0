// The selective scan, forward and backward, for one instruction set: compiled once for each (see CMakeLists.txt).
// The convolution before it is in conv.h.
//
// Order of work in a unit (an image and a slice of its channels): blocks of kBlock tokens outside, vectors of W
// channels inside, a few states at a time in registers. Rows are read once, in runs as wide as the slice; the rows of
// B and C are converted once per block; all scratch is one workspace that stays in the first- and second-level cache.
#include "scan.h"
#include "vec.h"

namespace {

using namespace dacesr;

INLINE int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }  // not std::min: see vec.h
constexpr int64_t up(int64_t x) { return (x + W - 1) / W * W; }

struct Slice {
    int64_t image, index, first, width;  // channels [first, first + width)
};

Slice slice_of(int64_t d, int slices, int64_t unit) {
    const int64_t vectors = (d + W - 1) / W, image = unit / slices, index = unit % slices;
    const int64_t first = vectors * index / slices * W, end = vectors * (index + 1) / slices * W;
    return {image, index, first, least(end, d) - first};
}

int64_t widest_slice(int64_t d, int slices) {
    const int64_t vectors = (d + W - 1) / W;
    return (vectors + slices - 1) / slices * W;
}

// The state before a block, kept for the backward pass in the layout of the workspace.
float* starts_at(const ScanArgs& a, const Slice& s, int64_t block) {
    const int64_t blocks = (a.l + kBlock - 1) / kBlock;
    return a.starts + ((s.image * blocks + block) * up(a.d) + s.first) * a.n;
}

// Hands out parts of the workspace, each a whole number of vectors.
struct Arena {
    float* next;
    float* take(int64_t floats) { float* p = next; next += up(floats); return p; }
};

// (width, n) <-> [vector][n][W]: the layout in which a vector of channels has its states side by side.
template <bool kScaled>
void gather_states(float* to, const float* from, int64_t width, int64_t n) {
    for (int64_t c = 0; c < up(width); c += W)
        for (int64_t k = 0; k < n; ++k)
            for (int64_t i = 0; i < W; ++i)
                to[c * n + k * W + i] = c + i < width ? from[(c + i) * n + k] * (kScaled ? kLog2e : 1.f) : 0.f;
}
void scatter_states(float* to, const float* from, int64_t width, int64_t n) {
    for (int64_t c = 0; c < width; ++c)
        for (int64_t k = 0; k < n; ++k) to[c * n + k] = from[c / W * W * n + k * W + c % W];
}

void copy_rows(float* to, const Rows& rows, int64_t image, int64_t t0, int tokens, int64_t n) {
    for (int t = 0; t < tokens; ++t) {
        const int64_t at = image * rows.batch + (t0 + t) * rows.row;
        for (int64_t k = 0; k < n; k += W) {
            const int lanes = n - k < W ? int(n - k) : W;
            store(to, t * n + k, false, lanes, load(rows.data, at + k, rows.bf16, lanes));
        }
    }
}

// Where W channels of one block lie in a (b, l, d) tensor. `get` and `put` also fetch what they will touch in the next
// block, `ahead` tokens on: without that a third of the time is waiting for memory.
struct Window {
    int64_t image, t0, channel;
    int lanes, ahead;
    int64_t at(const Rows& r, int t) const { return image * r.batch + (t0 + t) * r.row + channel; }
    const char* next(const Rows& r, int64_t at) const {
        return static_cast<const char*>(r.data) + (at + ahead * r.row) * (r.bf16 ? 2 : 4);
    }
    INLINE vf read(const Rows& r, int t) const { return load(r.data, at(r, t), r.bf16, lanes); }
    INLINE vf get(const Rows& r, int t) const {
        __builtin_prefetch(next(r, at(r, t)));
        return read(r, t);
    }
    INLINE void put(const Rows& r, int t, vf v) const {
        const int64_t i = at(r, t);
        __builtin_prefetch(next(r, i), 1);
        store(r.data, i, r.bf16, lanes, v);
    }
};

// Calls step.run<count>(first) until all n states are done, `most` at a time.
template <int kMost, class Step>
INLINE void each_states(int64_t n, Step step) {
    int64_t k = 0;
    for (; k + kMost <= n; k += kMost) step.template run<kMost>(k);
    if constexpr (kMost > 4) for (; k + 4 <= n; k += 4) step.template run<4>(k);
    for (; k < n; ++k) step.template run<1>(k);
}

// h_t = 2^(dt A') h_(t-1) + (dt u) B_t;  y_t += C_t h_t, for `count` states of W channels over one block.
struct ForwardStep {
    const float *A, *B, *C, *dt, *du;
    float *h, *y;
    int64_t n;
    int tokens;

    template <int kCount> INLINE void run(int64_t k) const {
        vf state[kCount], decay[kCount];
        for (int j = 0; j < kCount; ++j) state[j] = load(h + (k + j) * W), decay[j] = load(A + (k + j) * W);
        for (int t = 0; t < tokens; ++t) {
            const vf step = load(dt + t * W), in = load(du + t * W);
            const float *b = B + t * n + k, *c = C + t * n + k;
            vf sum = load(y + t * W);
            UNROLL
            for (int j = 0; j < kCount; ++j) {
                state[j] = exp2_(step * decay[j]) * state[j] + in * b[j];
                sum += state[j] * c[j];
            }
            store(y + t * W, sum);
        }
        for (int j = 0; j < kCount; ++j) store(h + (k + j) * W, state[j]);
    }
};

void forward(const ScanArgs& a, int64_t unit, float* workspace) {
    const Slice s = slice_of(a.d, a.slices, unit);
    const int64_t n = a.n, blocks = (a.l + kBlock - 1) / kBlock;
    Arena arena{workspace};
    float *A = arena.take(up(s.width) * n), *h = arena.take(up(s.width) * n);
    float *B = arena.take(kBlock * n), *C = arena.take(kBlock * n);
    float *dt = arena.take(kBlock * W), *du = arena.take(kBlock * W), *y = arena.take(kBlock * W);
    gather_states<true>(A, a.A + s.first * n, s.width, n);
    if (a.first) gather_states<false>(h, a.first + (s.image * a.d + s.first) * n, s.width, n);
    else std::memset(h, 0, sizeof(float) * up(s.width) * n);

    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t t0 = block * kBlock;
        const int tokens = int(least(a.l - t0, kBlock));
        copy_rows(B, a.B, s.image, t0, tokens, n);
        copy_rows(C, a.C, s.image, t0, tokens, n);
        if (a.starts) std::memcpy(starts_at(a, s, block), h, sizeof(float) * up(s.width) * n);
        for (int64_t c = 0; c < s.width; c += W) {
            const Window w{s.image, t0, s.first + c, int(least(s.width - c, W)), kBlock};
            const vf bias = a.bias ? load(a.bias, w.channel, false, w.lanes) : vf{};
            const vf skip = a.D ? load(a.D, w.channel, false, w.lanes) : vf{};
            for (int t = 0; t < tokens; ++t) {
                const vf u = w.get(a.u, t), raw = w.get(a.delta, t) + bias;
                const vf step = a.softplus ? softplus(raw).value : raw;
                store(dt + t * W, step);
                store(du + t * W, step * u);
                store(y + t * W, skip * u);
            }
            each_states<DACESR_STATES>(n, ForwardStep{A + c * n, B, C, dt, du, h + c * n, y, n, tokens});
            for (int t = 0; t < tokens; ++t) {
                vf out = load(y + t * W);
                if (a.z.data) {
                    const vf z = w.get(a.z, t);
                    out *= z * sigmoid(z);
                }
                w.put(a.out, t, out);
            }
        }
    }
    scatter_states(a.last + (s.image * a.d + s.first) * n, h, s.width, n);
}

// The same block again with decay and state kept, then the adjoint from its last token to its first:
//   g_t = dy_t C_t + a_(t+1) g_(t+1);  dC_t += dy_t h_t;  dB_t += g_t dt_t u_t
//   d(dt_t u_t) += g_t B_t;  q = g_t a_t h_(t-1);  d(dt_t) += q A;  dA += q dt_t
struct BackwardStep {
    const float *A, *B, *C, *dt, *du, *dy, *start;
    float *y, *carry, *dA, *sum_in, *sum_dt;  // carry: a_(t+1) g_(t+1) at the end of the block, updated to its start
    float *dB, *dC;                           // [token][n][W], summed over the channel vectors of the slice
    float *kept_a, *kept_h;                   // [token][count][W]
    int64_t n;
    int tokens;

    template <int kCount> INLINE void run(int64_t k) const {
        vf state[kCount], decay[kCount];
        for (int j = 0; j < kCount; ++j) state[j] = load(start + (k + j) * W), decay[j] = load(A + (k + j) * W);
        for (int t = 0; t < tokens; ++t) {
            const vf step = load(dt + t * W), in = load(du + t * W), out = load(dy + t * W);
            const float *b = B + t * n + k, *c = C + t * n + k;
            vf sum = load(y + t * W);
            UNROLL
            for (int j = 0; j < kCount; ++j) {
                const vf factor = exp2_(step * decay[j]), before = factor * state[j];
                float* dc = dC + (t * n + k + j) * W;
                store(kept_a + (t * kCount + j) * W, factor);
                store(kept_h + (t * kCount + j) * W, before);
                state[j] = before + in * b[j];
                sum += state[j] * c[j];
                store(dc, load(dc) + out * state[j]);
            }
            store(y + t * W, sum);
        }
        vf g[kCount], da[kCount];
        for (int j = 0; j < kCount; ++j) g[j] = load(carry + (k + j) * W), da[j] = load(dA + (k + j) * W);
        for (int t = tokens - 1; t >= 0; --t) {
            const vf step = load(dt + t * W), in = load(du + t * W), out = load(dy + t * W);
            const float *b = B + t * n + k, *c = C + t * n + k;
            vf s_in = load(sum_in + t * W), s_dt = load(sum_dt + t * W);
            UNROLL
            for (int j = 0; j < kCount; ++j) {
                float* db = dB + (t * n + k + j) * W;
                g[j] += out * c[j];
                store(db, load(db) + g[j] * in);
                s_in += g[j] * b[j];
                const vf q = g[j] * load(kept_h + (t * kCount + j) * W);
                s_dt += q * decay[j];
                da[j] += q * step;
                g[j] *= load(kept_a + (t * kCount + j) * W);
            }
            store(sum_in + t * W, s_in);
            store(sum_dt + t * W, s_dt);
        }
        for (int j = 0; j < kCount; ++j) store(carry + (k + j) * W, g[j]), store(dA + (k + j) * W, da[j]);
    }
};

// The sums of the lanes of `count` vectors, which are overwritten.
void add_lanes(float* to, float* from, int64_t count) {
    typedef float v4 __attribute__((vector_size(16)));
    for (int64_t i = 0; i < count; ++i) {
        v4 sum, part;
        std::memcpy(&sum, from + i * W, sizeof sum);
        for (int j = 4; j < W; j += 4) std::memcpy(&part, from + i * W + j, sizeof part), sum += part;
        std::memcpy(from + i * 4, &sum, sizeof sum);
    }
    for (int64_t i = 0; i < count; ++i) to[i] = (from[i * 4] + from[i * 4 + 1]) + (from[i * 4 + 2] + from[i * 4 + 3]);
}

// What the adjoint needs of W channels over one block, each [token][W].
struct BackwardBlock {
    float *dt, *slope, *du, *dy, *gate, *y, *sum_in, *sum_dt;
    int tokens;

    void prepare(const ScanArgs& a, const GradArgs& g, const Window& w) const {
        const vf bias = a.bias ? load(a.bias, w.channel, false, w.lanes) : vf{};
        const vf skip = a.D ? load(a.D, w.channel, false, w.lanes) : vf{};
        for (int t = 0; t < tokens; ++t) {
            const vf in = w.get(a.u, t), raw = w.get(a.delta, t) + bias;
            const Soft step = a.softplus ? softplus(raw) : Soft{raw, splat(1.f)};
            vf out = w.get(g.dout, t);
            if (a.z.data) {
                const vf z = w.get(a.z, t), open = sigmoid(z);
                store(gate + t * W, out * open * (1.f + z * (1.f - open)));
                out *= z * open;
            }
            store(dt + t * W, step.value);
            store(slope + t * W, step.slope);
            store(du + t * W, step.value * in);
            store(dy + t * W, out);
            store(y + t * W, skip * in);
            store(sum_in + t * W, vf{});
            store(sum_dt + t * W, vf{});
        }
    }

    void finish(const ScanArgs& a, const GradArgs& g, const Window& w, float* dD, float* dbias) const {
        const vf skip = a.D ? load(a.D, w.channel, false, w.lanes) : vf{};
        vf d_skip = load(dD), d_bias = load(dbias);
        for (int t = 0; t < tokens; ++t) {
            const vf x = w.read(a.u, t), out = load(dy + t * W), in = load(sum_in + t * W);
            // A carries the factor log2(e) here, hence the 1 / log2(e).
            const vf d_step = (load(sum_dt + t * W) * (1.f / kLog2e) + x * in) * load(slope + t * W);
            w.put(g.du, t, load(dt + t * W) * in + skip * out);
            w.put(g.ddelta, t, d_step);
            if (a.z.data) w.put(g.dz, t, load(gate + t * W) * load(y + t * W));
            d_skip += out * x;
            d_bias += d_step;
        }
        store(dD, d_skip);
        store(dbias, d_bias);
    }
};

void backward(const ScanArgs& a, const GradArgs& g, int64_t unit, float* workspace) {
    const Slice s = slice_of(a.d, a.slices, unit);
    const int64_t n = a.n, blocks = (a.l + kBlock - 1) / kBlock, states = up(s.width) * n;
    Arena arena{workspace};
    float *A = arena.take(states), *carry = arena.take(states), *dA = arena.take(states);
    float *dD = arena.take(up(s.width)), *dbias = arena.take(up(s.width));
    float *B = arena.take(kBlock * n), *C = arena.take(kBlock * n);
    float *dB = arena.take(kBlock * n * W), *dC = arena.take(kBlock * n * W);
    float *kept_a = arena.take(kBlock * DACESR_STATES * W), *kept_h = arena.take(kBlock * DACESR_STATES * W);
    BackwardBlock k;
    float** const rows[] = {&k.dt, &k.slope, &k.du, &k.dy, &k.gate, &k.y, &k.sum_in, &k.sum_dt};
    for (float** row : rows) *row = arena.take(kBlock * W);
    gather_states<true>(A, a.A + s.first * n, s.width, n);
    std::memset(dA, 0, sizeof(float) * states);
    std::memset(dD, 0, sizeof(float) * up(s.width));
    std::memset(dbias, 0, sizeof(float) * up(s.width));
    if (g.dlast) gather_states<false>(carry, g.dlast + (s.image * a.d + s.first) * n, s.width, n);
    else std::memset(carry, 0, sizeof(float) * states);

    for (int64_t block = blocks - 1; block >= 0; --block) {
        const int64_t t0 = block * kBlock;
        k.tokens = int(least(a.l - t0, kBlock));
        copy_rows(B, a.B, s.image, t0, k.tokens, n);
        copy_rows(C, a.C, s.image, t0, k.tokens, n);
        const float* start = starts_at(a, s, block);
        std::memset(dB, 0, sizeof(float) * kBlock * n * W);
        std::memset(dC, 0, sizeof(float) * kBlock * n * W);
        for (int64_t c = 0; c < s.width; c += W) {
            const Window w{s.image, t0, s.first + c, int(least(s.width - c, W)), -kBlock};
            k.prepare(a, g, w);
            each_states<DACESR_STATES>(n, BackwardStep{A + c * n, B, C, k.dt, k.du, k.dy, start + c * n, k.y,
                                                       carry + c * n, dA + c * n, k.sum_in, k.sum_dt, dB, dC, kept_a,
                                                       kept_h, n, k.tokens});
            k.finish(a, g, w, dD + c, dbias + c);
        }
        const int64_t at = ((s.index * a.b + s.image) * a.l + t0) * n;
        add_lanes(g.dB + at, dB, k.tokens * n);
        add_lanes(g.dC + at, dC, k.tokens * n);
    }
    const int64_t channel = s.image * a.d + s.first;
    scatter_states(g.dA + channel * n, dA, s.width, n);
    std::memcpy(g.dD + channel, dD, sizeof(float) * s.width);
    std::memcpy(g.dbias + channel, dbias, sizeof(float) * s.width);
}

size_t workspace(const ScanArgs& a, bool with_backward) {
    const int64_t width = widest_slice(a.d, a.slices), n = a.n;
    const int64_t forward_floats = 2 * width * n + 2 * up(kBlock * n) + 3 * kBlock * W;
    const int64_t backward_floats = 3 * width * n + 2 * width + 2 * up(kBlock * n) + 2 * kBlock * n * W +
                                    2 * kBlock * DACESR_STATES * W + 8 * kBlock * W;
    return size_t(with_backward ? backward_floats : forward_floats);
}

}  // namespace

#include "conv.h"

const dacesr::Kernels dacesr::DACESR_KERNELS = {DACESR_NAME, W, workspace, forward, backward,
                                                conv_workspace, conv_forward, conv_backward};
