// Compiled part of agents/fast/patches.py, which says what each function does.
//
// Arrays come in as buffers (numpy arrays): contiguous, of the types named below; sizes are checked.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

// With GCC on Linux the loops are compiled twice, and the loader takes what the processor has. They only add: both
// give the same bits.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace {

constexpr int kTaps = 9;    // of a 3x3 window
constexpr int kBlock = 32;  // channels that are added in registers

// Rows of kTaps numbers, each kept once, in a hash table that grows with them.
class Patches {
 public:
  explicit Patches(int32_t* rows) : rows_(rows), slots_(1 << 12, -1) {}

  int32_t index_of(const int32_t* patch) {
    uint64_t hash = 0;
    for (int k = 0; k < kTaps; ++k) hash += static_cast<uint32_t>(patch[k]) * kMultipliers[k];
    hash ^= hash >> 32;
    const uint64_t mask = slots_.size() - 1;
    for (uint64_t slot = hash & mask;; slot = (slot + 1) & mask) {
      const int32_t found = slots_[slot];
      if (found < 0) {
        slots_[slot] = size();
        return add(patch, hash);
      }
      if (std::memcmp(rows_ + found * kTaps, patch, kTaps * sizeof(int32_t)) == 0) return found;
    }
  }

  int32_t size() const { return static_cast<int32_t>(hashes_.size()); }

 private:
  // Random odd numbers.
  static constexpr uint64_t kMultipliers[kTaps] = {
      0xCD777F242E43296Du, 0xDE4DE63BC077210Bu, 0x9F6A0F7C0A2C46F1u, 0x8824FC33D78097B3u, 0xAC4A3E7B1419F285u,
      0x8154CE12CBC125A7u, 0xE2E9EE470360DCD9u, 0xCFC82C45BF37FFA7u, 0x93B3005466E9D343u};

  int32_t add(const int32_t* patch, uint64_t hash) {
    const int32_t index = size();
    std::memcpy(rows_ + index * kTaps, patch, kTaps * sizeof(int32_t));
    hashes_.push_back(hash);
    if (2 * hashes_.size() > slots_.size()) grow();
    return index;
  }

  void grow() {
    slots_.assign(2 * slots_.size(), -1);
    const uint64_t mask = slots_.size() - 1;
    for (int32_t i = 0; i < size(); ++i) {
      uint64_t slot = hashes_[i] & mask;
      while (slots_[slot] >= 0) slot = (slot + 1) & mask;
      slots_[slot] = i;
    }
  }

  int32_t* rows_;
  std::vector<uint64_t> hashes_;
  std::vector<int32_t> slots_;
};

int32_t find_patches(const int32_t* maps, Py_ssize_t num, int height, int width, int stride, int32_t* patches,
                     int32_t* places) {
  Patches found(patches);
  const int padded_width = width + 2;
  std::vector<int32_t> padded((height + 2) * padded_width, -1);
  for (Py_ssize_t n = 0; n < num; ++n) {
    for (int y = 0; y < height; ++y) {
      std::memcpy(&padded[(y + 1) * padded_width + 1], maps + (n * height + y) * width, width * sizeof(int32_t));
    }
    for (int y = 0; y < height; y += stride) {
      for (int x = 0; x < width; x += stride) {
        int32_t patch[kTaps];
        for (int row = 0; row < 3; ++row) {
          std::memcpy(patch + 3 * row, &padded[(y + row) * padded_width + x], 3 * sizeof(int32_t));
        }
        *places++ = found.index_of(patch);
      }
    }
  }
  return found.size();
}

// One block of `width` channels of every patch; `width` is a constant where this is called, so that the
// sums stay in registers.
inline void add_taps(const float* table, const int32_t* patches, const float* bias, float* __restrict out,
                     Py_ssize_t num, int channels, int width) {
  static const float outside[kBlock] = {};
  for (Py_ssize_t p = 0; p < num; ++p) {
    const float* row[kTaps];
    for (int k = 0; k < kTaps; ++k) {
      const int64_t cell = patches[p * kTaps + k];
      row[k] = cell < 0 ? outside : table + (cell * kTaps + k) * channels;
    }
    for (int c = 0; c < width; ++c) {
      float sum = bias[c];
      for (int k = 0; k < kTaps; ++k) sum += row[k][c];
      out[p * channels + c] = sum > 0.0f ? sum : 0.0f;
    }
  }
}

inline void add_gradients(const float* grad_out, const float* out, const int32_t* patches,
                          float* __restrict grad_table, float* __restrict grad_bias, Py_ssize_t num, int channels,
                          int width) {
  for (Py_ssize_t p = 0; p < num; ++p) {
    float grad[kBlock];
    for (int c = 0; c < width; ++c) grad[c] = out[p * channels + c] > 0.0f ? grad_out[p * channels + c] : 0.0f;
    for (int c = 0; c < width; ++c) grad_bias[c] += grad[c];
    for (int k = 0; k < kTaps; ++k) {
      const int64_t cell = patches[p * kTaps + k];
      if (cell < 0) continue;
      float* row = grad_table + (cell * kTaps + k) * channels;
      for (int c = 0; c < width; ++c) row[c] += grad[c];
    }
  }
}

FOR_EACH_PROCESSOR
void layer(const float* table, const int32_t* patches, const float* bias, float* out, Py_ssize_t num, int channels) {
  int c = 0;
  for (; c + kBlock <= channels; c += kBlock) add_taps(table + c, patches, bias + c, out + c, num, channels, kBlock);
  if (c < channels) add_taps(table + c, patches, bias + c, out + c, num, channels, channels - c);
}

FOR_EACH_PROCESSOR
void layer_backward(const float* grad_out, const float* out, const int32_t* patches, float* grad_table,
                    float* grad_bias, Py_ssize_t num, int channels) {
  int c = 0;
  for (; c + kBlock <= channels; c += kBlock) {
    add_gradients(grad_out + c, out + c, patches, grad_table + c, grad_bias + c, num, channels, kBlock);
  }
  if (c < channels) {
    add_gradients(grad_out + c, out + c, patches, grad_table + c, grad_bias + c, num, channels, channels - c);
  }
}

FOR_EACH_PROCESSOR
void place_rows(const float* rows, const int32_t* places, float* out, Py_ssize_t num, int area, int channels) {
  for (Py_ssize_t n = 0; n < num; ++n, places += area, out += static_cast<Py_ssize_t>(area) * channels) {
    for (int s = 0; s < area; ++s) {
      const float* row = rows + static_cast<Py_ssize_t>(places[s]) * channels;
      for (int c = 0; c < channels; ++c) out[c * area + s] = row[c];
    }
  }
}

FOR_EACH_PROCESSOR
void place_rows_backward(const float* grad_out, const int32_t* places, float* grad_rows, Py_ssize_t num, int area,
                         int channels) {
  for (Py_ssize_t n = 0; n < num; ++n, places += area, grad_out += static_cast<Py_ssize_t>(area) * channels) {
    for (int s = 0; s < area; ++s) {
      float* row = grad_rows + static_cast<Py_ssize_t>(places[s]) * channels;
      for (int c = 0; c < channels; ++c) row[c] += grad_out[c * area + s];
    }
  }
}

// A buffer of numbers of one type, released when it goes out of scope.
class Array {
 public:
  ~Array() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }

  Py_buffer* view() { return &view_; }

  template <typename T>
  T* of() {
    return static_cast<T*>(view_.buf);
  }

  // Whether it holds exactly `num` 4-byte numbers; sets a ValueError where not.
  bool holds(Py_ssize_t num, const char* name) {
    if (view_.len == 4 * num) return true;
    PyErr_Format(PyExc_ValueError, "%s holds %zd bytes, expected %zd", name, view_.len, 4 * num);
    return false;
  }

 private:
  Py_buffer view_{};
};

bool all_within(const int32_t* indices, Py_ssize_t num, Py_ssize_t low, Py_ssize_t high) {
  int32_t smallest = INT32_MAX, largest = INT32_MIN;
  for (Py_ssize_t i = 0; i < num; ++i) {
    smallest = std::min(smallest, indices[i]);
    largest = std::max(largest, indices[i]);
  }
  if (num == 0 || (smallest >= low && largest < high)) return true;
  PyErr_Format(PyExc_IndexError, "indices from %d to %d, allowed are %zd to %zd", smallest, largest, low, high - 1);
  return false;
}

PyObject* py_find_patches(PyObject*, PyObject* args) {
  Array maps, patches, places;
  Py_ssize_t num;
  int height, width, stride;
  if (!PyArg_ParseTuple(args, "y*niiiw*w*", maps.view(), &num, &height, &width, &stride, patches.view(),
                        places.view())) {
    return nullptr;
  }
  if (stride < 1) return PyErr_Format(PyExc_ValueError, "stride is %d, expected 1 or more", stride);
  const Py_ssize_t area = static_cast<Py_ssize_t>((height + stride - 1) / stride) * ((width + stride - 1) / stride);
  if (!maps.holds(num * height * width, "maps") || !places.holds(num * area, "places") ||
      !patches.holds(num * area * kTaps, "patches")) {
    return nullptr;
  }
  try {
    return PyLong_FromLong(find_patches(maps.of<int32_t>(), num, height, width, stride, patches.of<int32_t>(),
                                        places.of<int32_t>()));
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* py_layer(PyObject*, PyObject* args) {
  Array table, patches, bias, out;
  Py_ssize_t num_cells, num;
  int channels;
  if (!PyArg_ParseTuple(args, "y*y*y*nniw*", table.view(), patches.view(), bias.view(), &num_cells, &num, &channels,
                        out.view())) {
    return nullptr;
  }
  if (!table.holds(num_cells * kTaps * channels, "table") || !patches.holds(num * kTaps, "patches") ||
      !bias.holds(channels, "bias") || !out.holds(num * channels, "out") ||
      !all_within(patches.of<int32_t>(), num * kTaps, -1, num_cells)) {
    return nullptr;
  }
  layer(table.of<float>(), patches.of<int32_t>(), bias.of<float>(), out.of<float>(), num, channels);
  Py_RETURN_NONE;
}

PyObject* py_layer_backward(PyObject*, PyObject* args) {
  Array grad_out, out, patches, grad_table, grad_bias;
  Py_ssize_t num_cells, num;
  int channels;
  if (!PyArg_ParseTuple(args, "y*y*y*nniw*w*", grad_out.view(), out.view(), patches.view(), &num_cells, &num, &channels,
                        grad_table.view(), grad_bias.view())) {
    return nullptr;
  }
  if (!grad_out.holds(num * channels, "grad_out") || !out.holds(num * channels, "out") ||
      !patches.holds(num * kTaps, "patches") || !grad_table.holds(num_cells * kTaps * channels, "grad_table") ||
      !grad_bias.holds(channels, "grad_bias") || !all_within(patches.of<int32_t>(), num * kTaps, -1, num_cells)) {
    return nullptr;
  }
  layer_backward(grad_out.of<float>(), out.of<float>(), patches.of<int32_t>(), grad_table.of<float>(),
                 grad_bias.of<float>(), num, channels);
  Py_RETURN_NONE;
}

PyObject* place_with(PyObject* args, bool backward) {
  Array source, places, target;
  Py_ssize_t num_rows, num;
  int area, channels;
  if (!PyArg_ParseTuple(args, "y*y*nniiw*", source.view(), places.view(), &num_rows, &num, &area, &channels,
                        target.view())) {
    return nullptr;
  }
  Array& rows = backward ? target : source;
  Array& maps = backward ? source : target;
  if (!rows.holds(num_rows * channels, "rows") || !places.holds(num * area, "places") ||
      !maps.holds(num * area * channels, "maps") || !all_within(places.of<int32_t>(), num * area, 0, num_rows)) {
    return nullptr;
  }
  auto* work = backward ? place_rows_backward : place_rows;
  work(source.of<float>(), places.of<int32_t>(), target.of<float>(), num, area, channels);
  Py_RETURN_NONE;
}

PyObject* py_place(PyObject*, PyObject* args) { return place_with(args, false); }

PyObject* py_place_backward(PyObject*, PyObject* args) { return place_with(args, true); }

PyMethodDef methods[] = {
    {"find_patches", py_find_patches, METH_VARARGS, "(maps, num, height, width, stride, patches, places) -> count"},
    {"layer", py_layer, METH_VARARGS, "(table, patches, bias, num_cells, num, channels, out)"},
    {"layer_backward", py_layer_backward, METH_VARARGS,
     "(grad_out, out, patches, num_cells, num, channels, grad_table, grad_bias)"},
    {"place", py_place, METH_VARARGS, "(rows, places, num_rows, num, area, channels, maps)"},
    {"place_backward", py_place_backward, METH_VARARGS, "(grad_maps, places, num_rows, num, area, channels, grad_rows)"},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_patches", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__patches() { return PyModule_Create(&module); }
