// Vectors of fp32 in the compiler's own vector types, so that one source serves every instruction set.
// Included once per instruction set; everything is in an unnamed namespace so that no code compiled for a
// newer processor can be linked into the path of an older one.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")  // by itself GCC leaves the longer loops over states as they are
#endif

namespace {

constexpr int W = DACESR_WIDTH;
typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));

INLINE vf splat(float x) { return x - vf{}; }
INLINE vf load(const float* p) { vf v; std::memcpy(&v, p, sizeof v); return v; }
INLINE void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }
template <class To, class From> INLINE To bits(From v) { To r; std::memcpy(&r, &v, sizeof r); return r; }

// NaN stays NaN: these instructions return their second operand where either is NaN, and compilers do not find them
// from the comparison written out.
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
INLINE vf at_least(float low, vf x) { return (vf)_mm512_max_ps(_mm512_set1_ps(low), (__m512)x); }
INLINE vf at_most(float high, vf x) { return (vf)_mm512_min_ps(_mm512_set1_ps(high), (__m512)x); }
#elif DACESR_WIDTH == 8 && defined(__AVX2__)
INLINE vf at_least(float low, vf x) { return (vf)_mm256_max_ps(_mm256_set1_ps(low), (__m256)x); }
INLINE vf at_most(float high, vf x) { return (vf)_mm256_min_ps(_mm256_set1_ps(high), (__m256)x); }
#elif DACESR_WIDTH == 4 && defined(__SSE2__)
INLINE vf at_least(float low, vf x) { return (vf)_mm_max_ps(_mm_set1_ps(low), (__m128)x); }
INLINE vf at_most(float high, vf x) { return (vf)_mm_min_ps(_mm_set1_ps(high), (__m128)x); }
#else
INLINE vf at_least(float low, vf x) { const vf m = splat(low); return m > x ? m : x; }
INLINE vf at_most(float high, vf x) { const vf m = splat(high); return m < x ? m : x; }
#endif

// 2^x: x is split into a whole number and f in [-0.5, 0.5]; 2^f by a minimax polynomial of degree 5 with constant
// term 1, relative error 1e-7. Results from 2^128 on are infinity, those below 2^-126 at most 2^-126; x is finite.
INLINE vf exp2_(vf x) {
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
    const vf whole = (vf)_mm512_roundscale_ps((__m512)x, 0), f = x - whole;
#else
    x = at_most(128.f, at_least(-126.f, x));
    const vf shifted = x + 12582912.f;  // 1.5 * 2^23: the whole part now stands in the low bits
    const vf f = x - (shifted - 12582912.f);
#endif
    vf p = f * 0.0013264736626297235f + 0.009671516716480255f;
    p = p * f + 0.05550733581185341f;
    p = p * f + 0.24022242426872253f;
    p = p * f + 0.6931470036506653f;
    p = p * f + 1.f;
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    return bits<vf>(bits<vi>(p) + (bits<vi>(shifted) << 23));
#endif
}
constexpr float kLog2e = 1.4426950408889634f;
INLINE vf exp_(vf x) { return exp2_(at_most(128.f, at_least(-126.f, x * kLog2e))); }

INLINE vf sigmoid(vf x) { return 1.f / (1.f + exp_(-x)); }

// log(1 + e^x) = max(x, 0) + 2 atanh(s), s = y / (2 + y), y = e^-|x|; atanh to a relative error of 1e-8.
// Its slope is the sigmoid, 1 / (1 + y) or y / (1 + y); both quotients come from one division.
struct Soft { vf value, slope; };
INLINE Soft softplus(vf x) {
    const vf magnitude = bits<vf>(bits<vu>(x) & 0x7fffffffu);
    const vf y = exp_(-magnitude), r = 1.f / ((1.f + y) * (2.f + y));
    const vf s = r * y * (1.f + y), q = s * s, half = r * (2.f + y);
    vf p = q * 0.14006076753139496f + 0.1400088667869568f;
    p = p * q + 0.2001076489686966f;
    p = p * q + 0.3333320915699005f;
    return {at_least(0.f, x) + 2.f * (s + s * q * p), x < 0.f ? half * y : half};
}

#if DACESR_WIDTH == 16 && defined(__AVX512F__)  // GCC 12 makes these from halves
INLINE vu widen(vh v) { return (vu)_mm512_cvtepu16_epi32((__m256i)v); }
INLINE vh narrow(vu v) { return (vh)_mm512_cvtepi32_epi16((__m512i)v); }
#else
INLINE vu widen(vh v) { return __builtin_convertvector(v, vu); }
INLINE vh narrow(vu v) { return __builtin_convertvector(v, vh); }
#endif
INLINE vf from_bf16(vh v) { return bits<vf>(widen(v) << 16); }
INLINE vh to_bf16(vf v) {  // round to nearest even
    const vu x = bits<vu>(v);
    const vu rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
    const vu quiet = (x >> 16) | 0x40u;
    return narrow((v != v) ? quiet : rounded);
}

// The first `lanes` of W elements; the other lanes are zero.
INLINE vf load_part(const float* p, int lanes) {
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps(__mmask16((1u << lanes) - 1), p);
#else
    vf v{};
    for (int i = 0; i < lanes; ++i) v[i] = p[i];
    return v;
#endif
}
INLINE vh load_part(const uint16_t* p, int lanes) {
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
    const __mmask16 pairs = __mmask16((1u << lanes / 2) - 1);
    if (lanes % 2 == 0) return (vh)_mm512_castsi512_si256(_mm512_maskz_loadu_epi32(pairs, p));
#endif
    vh v{};
    for (int i = 0; i < lanes; ++i) v[i] = p[i];
    return v;
}
INLINE void store_part(float* p, int lanes, vf v) {
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, __mmask16((1u << lanes) - 1), (__m512)v);
#else
    for (int i = 0; i < lanes; ++i) p[i] = v[i];
#endif
}
INLINE void store_part(uint16_t* p, int lanes, vh v) {
#if DACESR_WIDTH == 16 && defined(__AVX512F__)
    const __mmask16 pairs = __mmask16((1u << lanes / 2) - 1);
    if (lanes % 2 == 0) return _mm512_mask_storeu_epi32(p, pairs, _mm512_castsi256_si512((__m256i)v));
#endif
    for (int i = 0; i < lanes; ++i) p[i] = v[i];
}

// The same from and to row memory of either type.
INLINE vf load(const void* base, int64_t at, bool bf16, int lanes) {
    if (bf16) {
        const uint16_t* p = static_cast<const uint16_t*>(base) + at;
        vh v;
        if (lanes == W) std::memcpy(&v, p, sizeof v);
        else v = load_part(p, lanes);
        return from_bf16(v);
    }
    const float* p = static_cast<const float*>(base) + at;
    return lanes == W ? load(p) : load_part(p, lanes);
}
INLINE void store(void* base, int64_t at, bool bf16, int lanes, vf v) {
    if (bf16) {
        uint16_t* p = static_cast<uint16_t*>(base) + at;
        const vh h = to_bf16(v);
        if (lanes == W) std::memcpy(p, &h, sizeof h);
        else store_part(p, lanes, h);
        return;
    }
    float* p = static_cast<float*>(base) + at;
    if (lanes == W) store(p, v);
    else store_part(p, lanes, v);
}

}  // namespace
