// Python binding: checks shapes, chooses the instruction set, spreads units of work over threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "scan.h"

namespace nb = nanobind;
using namespace dacesr;

namespace {

using Array = nb::ndarray<nb::device::cpu>;
using Maybe = std::optional<Array>;

std::vector<const Kernels*> supported() {
    std::vector<const Kernels*> list;
#ifdef DACESR_X86
    if (__builtin_cpu_supports("avx512f")) list.push_back(&kAvx512Kernels);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list.push_back(&kAvx2Kernels);
#endif
    list.push_back(&kBaselineKernels);
    return list;
}

const Kernels& choose(const std::string& name) {
    for (const Kernels* k : supported())
        if (name.empty() || name == k->name) return *k;
    throw std::invalid_argument("instruction set '" + name + "' is not supported by this processor or build");
}

bool is(const Array& a, nb::dlpack::dtype_code code, int width) {
    return a.dtype().code == uint8_t(code) && a.dtype().bits == width && a.dtype().lanes == 1;
}

[[noreturn]] void wrong(const char* name, const char* what) { throw std::invalid_argument(std::string(name) + ": " + what); }

Rows rows(const char* name, const Maybe& given, int64_t b, int64_t l, int64_t width) {
    if (!given) return {};
    const Array& a = *given;
    if (a.ndim() != 3 || int64_t(a.shape(0)) != b || int64_t(a.shape(1)) != l || int64_t(a.shape(2)) != width)
        wrong(name, "shape does not fit the other tensors");
    if (width > 1 && a.stride(2) != 1) wrong(name, "last dimension must have unit stride");
    const bool bf16 = is(a, nb::dlpack::dtype_code::Bfloat, 16);
    if (!bf16 && !is(a, nb::dlpack::dtype_code::Float, 32)) wrong(name, "must be float32 or bfloat16");
    return {a.data(), a.stride(0), a.stride(1), bf16};
}

float* packed(const char* name, const Maybe& given, std::initializer_list<int64_t> shape) {
    if (!given) return nullptr;
    const Array& a = *given;
    bool fits = a.ndim() == shape.size();
    int64_t stride = 1;
    for (size_t i = shape.size(); fits && i-- > 0;) {
        const int64_t size = shape.begin()[i];
        fits = int64_t(a.shape(i)) == size && (size <= 1 || a.stride(i) == stride);
        stride *= size;
    }
    if (!fits) wrong(name, "must be contiguous and its shape must fit the other tensors");
    if (!is(a, nb::dlpack::dtype_code::Float, 32)) wrong(name, "must be float32");
    return static_cast<float*>(a.data());
}

// Runs work(unit, workspace) for all units on up to `threads` threads; each thread allocates one workspace.
template <class Work>
void parallel(int64_t units, int threads, size_t floats, const Work& work) {
    const int64_t count = std::max<int64_t>(1, std::min<int64_t>(threads, units));
    constexpr std::align_val_t alignment{64};
    std::vector<float*> spaces(count, nullptr);
    auto release = [&] { for (float* p : spaces) ::operator delete(p, alignment); };
    try {
        for (float*& p : spaces) p = static_cast<float*>(::operator new(floats * sizeof(float), alignment));
        std::atomic<int64_t> next{0};
        auto run = [&](int64_t i) { for (int64_t u; (u = next++) < units;) work(u, spaces[i]); };
        std::vector<std::thread> helpers;
        helpers.reserve(count - 1);
        try {
            for (int64_t i = 1; i < count; ++i) helpers.emplace_back(run, i);
        } catch (const std::system_error&) {  // no more threads to be had: those that started share the work
        }
        run(0);
        for (auto& helper : helpers) helper.join();
    } catch (...) {
        release();
        throw;
    }
    release();
}

ScanArgs scan_args(const Array& u, const Array& delta, const Array& A, const Array& B, const Array& C, const Maybe& D,
                   const Maybe& z, const Maybe& bias, bool softplus, int slices) {
    if (u.ndim() != 3 || A.ndim() != 2) throw std::invalid_argument("u must be (b, l, d) and A (d, n)");
    ScanArgs a;
    a.b = u.shape(0), a.l = u.shape(1), a.d = u.shape(2), a.n = A.shape(1);
    if (a.n < 1 || a.n > kMaxStates) throw std::invalid_argument("A: the native scan takes 1 to 64 states");
    if (slices < 1) throw std::invalid_argument("slices must be positive");
    a.u = rows("u", u, a.b, a.l, a.d), a.delta = rows("delta", delta, a.b, a.l, a.d), a.z = rows("z", z, a.b, a.l, a.d);
    a.B = rows("B", B, a.b, a.l, a.n), a.C = rows("C", C, a.b, a.l, a.n);
    a.A = packed("A", A, {a.d, a.n}), a.D = packed("D", D, {a.d}), a.bias = packed("delta_bias", bias, {a.d});
    a.softplus = softplus, a.slices = slices;
    return a;
}

float* starts(const ScanArgs& a, const Kernels& k, const Maybe& given) {
    return packed("starts", given, {a.b, (a.l + kBlock - 1) / kBlock, (a.d + k.width - 1) / k.width * k.width, a.n});
}

void forward(const Array& u, const Array& delta, const Array& A, const Array& B, const Array& C, const Maybe& D,
             const Maybe& z, const Maybe& bias, bool softplus, const Maybe& first, const Array& out, const Array& last, const Maybe& states,
             int slices, int threads, const std::string& isa) {
    ScanArgs a = scan_args(u, delta, A, B, C, D, z, bias, softplus, slices);
    a.first = packed("initial_state", first, {a.b, a.d, a.n});
    a.out = rows("out", out, a.b, a.l, a.d), a.last = packed("last_state", last, {a.b, a.d, a.n});
    const Kernels& k = choose(isa);
    a.starts = starts(a, k, states);
    nb::gil_scoped_release release;
    parallel(a.b * slices, threads, k.workspace(a, false), [&](int64_t unit, float* p) { k.forward(a, unit, p); });
}

void backward(const Array& u, const Array& delta, const Array& A, const Array& B, const Array& C, const Maybe& D,
              const Maybe& z, const Maybe& bias, bool softplus, const Array& states, const Array& dout,
              const Maybe& dlast, const Array& du, const Array& ddelta, const Maybe& dz, const Array& dA,
              const Array& dB, const Array& dC, const Array& dD, const Array& dbias, int slices, int threads,
              const std::string& isa) {
    ScanArgs a = scan_args(u, delta, A, B, C, D, z, bias, softplus, slices);
    const Kernels& k = choose(isa);
    a.starts = starts(a, k, states);
    GradArgs g;
    g.dout = rows("dout", dout, a.b, a.l, a.d), g.dlast = packed("dlast", dlast, {a.b, a.d, a.n});
    g.du = rows("du", du, a.b, a.l, a.d), g.ddelta = rows("ddelta", ddelta, a.b, a.l, a.d);
    g.dz = rows("dz", dz, a.b, a.l, a.d);
    if (bool(a.z.data) != bool(g.dz.data)) throw std::invalid_argument("dz must be given exactly when z is");
    g.dA = packed("dA", dA, {a.b, a.d, a.n}), g.dD = packed("dD", dD, {a.b, a.d});
    g.dbias = packed("dbias", dbias, {a.b, a.d});
    g.dB = packed("dB", dB, {slices, a.b, a.l, a.n}), g.dC = packed("dC", dC, {slices, a.b, a.l, a.n});
    nb::gil_scoped_release release;
    parallel(a.b * slices, threads, k.workspace(a, true), [&](int64_t unit, float* p) { k.backward(a, g, unit, p); });
}

ConvArgs conv_args(const Array& x, const Array& weight, const Maybe& bias, int slices) {
    if (x.ndim() != 3 || weight.ndim() != 2) throw std::invalid_argument("x must be (b, l, d) and weight (d, taps)");
    ConvArgs a;
    a.b = x.shape(0), a.l = x.shape(1), a.d = x.shape(2), a.taps = weight.shape(1), a.slices = slices;
    if (a.taps < 1 || a.taps > kMaxTaps) throw std::invalid_argument("weight: the native convolution takes 1 to 32 taps");
    if (slices < 1) throw std::invalid_argument("slices must be positive");
    a.x = rows("x", x, a.b, a.l, a.d);
    a.weight = packed("weight", weight, {a.d, a.taps}), a.bias = packed("bias", bias, {a.d});
    return a;
}

void conv_forward(const Array& x, const Array& weight, const Maybe& bias, const Array& out, int slices, int threads,
                  const std::string& isa) {
    ConvArgs a = conv_args(x, weight, bias, slices);
    a.out = rows("out", out, a.b, a.l, a.d);
    const Kernels& k = choose(isa);
    nb::gil_scoped_release release;
    parallel(a.b * slices, threads, k.conv_workspace(a, false), [&](int64_t u, float* p) { k.conv_forward(a, u, p); });
}

void conv_backward(const Array& x, const Array& weight, const Maybe& bias, const Array& dout, const Array& dx,
                   const Array& dweight, const Array& dbias, int slices, int threads, const std::string& isa) {
    const ConvArgs a = conv_args(x, weight, bias, slices);
    ConvGrads g;
    g.dout = rows("dout", dout, a.b, a.l, a.d), g.dx = rows("dx", dx, a.b, a.l, a.d);
    g.dweight = packed("dweight", dweight, {a.b, a.d, a.taps}), g.dbias = packed("dbias", dbias, {a.b, a.d});
    const Kernels& k = choose(isa);
    nb::gil_scoped_release release;
    parallel(a.b * slices, threads, k.conv_workspace(a, true), [&](int64_t u, float* p) { k.conv_backward(a, g, u, p); });
}

// Slices per image, so that the units of work divide well among the threads: 1 where the batch does that already.
int slices_for(int64_t b, int64_t d, int threads, const std::string& isa) {
    const int64_t vectors = (d + choose(isa).width - 1) / choose(isa).width;
    if (b == 0 || b >= 4 * threads) return 1;
    return int(std::max<int64_t>(1, std::min<int64_t>(threads / std::gcd(b, int64_t(threads)), vectors)));
}

}  // namespace

NB_MODULE(_native, m) {
    m.attr("BLOCK") = kBlock;
    m.attr("MAX_STATES") = kMaxStates;
    m.attr("MAX_TAPS") = kMaxTaps;
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Kernels* k : supported()) names.emplace_back(k->name);
        return names;
    });
    m.def("width", [](const std::string& isa) { return choose(isa).width; }, nb::arg("isa") = "");
    m.def("slices_for", &slices_for, nb::arg("b"), nb::arg("d"), nb::arg("threads"), nb::arg("isa") = "");
    m.def("forward", &forward, nb::arg("u"), nb::arg("delta"), nb::arg("A"), nb::arg("B"), nb::arg("C"),
          nb::arg("D").none(), nb::arg("z").none(), nb::arg("delta_bias").none(), nb::arg("delta_softplus"),
          nb::arg("initial_state").none(), nb::arg("out"), nb::arg("last_state"), nb::arg("starts").none(), nb::arg("slices"), nb::arg("threads"),
          nb::arg("isa") = "");
    m.def("backward", &backward, nb::arg("u"), nb::arg("delta"), nb::arg("A"), nb::arg("B"), nb::arg("C"),
          nb::arg("D").none(), nb::arg("z").none(), nb::arg("delta_bias").none(), nb::arg("delta_softplus"),
          nb::arg("starts"), nb::arg("dout"), nb::arg("dlast").none(), nb::arg("du"), nb::arg("ddelta"),
          nb::arg("dz").none(), nb::arg("dA"), nb::arg("dB"), nb::arg("dC"), nb::arg("dD"), nb::arg("dbias"),
          nb::arg("slices"), nb::arg("threads"), nb::arg("isa") = "");
    m.def("conv_forward", &conv_forward, nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(), nb::arg("out"),
          nb::arg("slices"), nb::arg("threads"), nb::arg("isa") = "");
    m.def("conv_backward", &conv_backward, nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(), nb::arg("dout"),
          nb::arg("dx"), nb::arg("dweight"), nb::arg("dbias"), nb::arg("slices"), nb::arg("threads"),
          nb::arg("isa") = "");
}
