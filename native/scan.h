// Selective scan and causal convolution of Mamba-1 on the CPU: what the binding and the kernels agree on.
// Letters: b batch, d channels, l tokens, n states. Rows are tokens; channels (or states) have unit stride.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dacesr {

constexpr int kBlock = 32;       // tokens handled before moving to the next channels; states are kept at this interval
constexpr int kMaxStates = 64;   // n at most
constexpr int kMaxTaps = 32;     // of the convolution

// A (b, l, width) view: strides in elements, fp32 or bfloat16. A null pointer means "not given".
struct Rows {
    void* data = nullptr;
    int64_t batch = 0, row = 0;
    bool bf16 = false;
};

struct ScanArgs {
    int64_t b = 0, d = 0, l = 0, n = 0;
    Rows u, delta, z, B, C;
    const float *A = nullptr, *D = nullptr, *bias = nullptr;  // (d, n), (d), (d), contiguous
    const float* first = nullptr; // (b, d, n): state before the first token; zero if null
    bool softplus = false;
    Rows out;                     // (b, l, d)
    float* last = nullptr;        // (b, d, n): state after the last token
    float* starts = nullptr;      // (b, ceil(l / kBlock), d rounded up to the lanes, n): state before each block, or null
    int slices = 1;               // channels are cut into this many parts, each a unit of work
};

struct GradArgs {
    Rows dout;                    // (b, l, d)
    const float* dlast = nullptr; // (b, d, n) or null
    Rows du, ddelta, dz;          // (b, l, d), outputs
    float *dA = nullptr, *dD = nullptr, *dbias = nullptr;  // (b, d, n), (b, d), (b, d): one part per image, outputs
    float *dB = nullptr, *dC = nullptr;                    // (slices, b, l, n): one part per slice, outputs
};

// The causal convolution over x (b, l, d) and the SiLU behind it.
struct ConvArgs {
    int64_t b = 0, d = 0, l = 0, taps = 0;
    Rows x, out;
    const float *weight = nullptr, *bias = nullptr;  // (d, taps), (d)
    int slices = 1;
};

struct ConvGrads {
    Rows dout, dx;
    float *dweight = nullptr, *dbias = nullptr;      // (b, d, taps), (b, d): one part per image, outputs
};

// One kernel set per instruction set. A unit is (image, slice); a workspace serves one thread.
struct Kernels {
    const char* name;
    int width;  // fp32 lanes
    size_t (*workspace)(const ScanArgs&, bool backward);  // floats
    void (*forward)(const ScanArgs&, int64_t unit, float* workspace);
    void (*backward)(const ScanArgs&, const GradArgs&, int64_t unit, float* workspace);
    size_t (*conv_workspace)(const ConvArgs&, bool backward);
    void (*conv_forward)(const ConvArgs&, int64_t unit, float* workspace);
    void (*conv_backward)(const ConvArgs&, const ConvGrads&, int64_t unit, float* workspace);
};

extern const Kernels kBaselineKernels;
#ifdef DACESR_X86
extern const Kernels kAvx2Kernels, kAvx512Kernels;
#endif

}  // namespace dacesr
