// Compiled part of envs/maps.py, which says what each function does.
//
// Arrays come in as buffers (numpy arrays): contiguous but for the first axis, of the item sizes named below; shapes
// are checked.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>

// With GCC on Linux the loops are compiled twice, and the loader takes what the processor has. They handle integers
// only: both give the same.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace {

constexpr int kBlock = 32;       // cells that are passed over together
constexpr int kCellBits = 11;    // of a key; a map has fewer than 2048 cells
constexpr uint8_t kNoRow = 255;  // of a glyph that is not looked for

// A buffer, held for the time of one call.
class View {
 public:
  View() { view_.obj = nullptr; }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() { PyBuffer_Release(&view_); }

  // Whether the object is an array of that many axes and bytes an item; sets an exception where it is not.
  bool take(PyObject* object, const char* name, int axes, Py_ssize_t itemsize, bool writable = false) {
    if (PyObject_GetBuffer(object, &view_, writable ? PyBUF_STRIDED : PyBUF_STRIDED_RO) != 0) {
      view_.obj = nullptr;
      return false;
    }
    if (view_.ndim != axes || view_.itemsize != itemsize) {
      PyErr_Format(PyExc_ValueError, "%s has %d axes of %zd-byte items, expected %d axes of %zd-byte items", name,
                   view_.ndim, view_.itemsize, axes, itemsize);
      return false;
    }
    Py_ssize_t contiguous = itemsize;
    for (int axis = axes - 1; axis > 0; --axis) {
      if (view_.strides[axis] != contiguous) {
        PyErr_Format(PyExc_ValueError, "%s is not contiguous within a game", name);
        return false;
      }
      contiguous *= view_.shape[axis];
    }
    return true;
  }

  // Whether the first axis has that many games, each of that many items; sets an exception where it has not.
  bool holds(const char* name, Py_ssize_t games, Py_ssize_t items) const {
    if (view_.shape[0] == games && this->items() == items) return true;
    PyErr_Format(PyExc_ValueError, "%s holds %zd games of %zd items, expected %zd of %zd", name, view_.shape[0],
                 this->items(), games, items);
    return false;
  }

  bool is_contiguous() const { return PyBuffer_IsContiguous(&view_, 'C') != 0; }
  Py_ssize_t games() const { return view_.shape[0]; }
  Py_ssize_t columns() const { return view_.shape[view_.ndim - 1]; }
  Py_ssize_t items() const {
    Py_ssize_t items = 1;
    for (int axis = 1; axis < view_.ndim; ++axis) items *= view_.shape[axis];
    return items;
  }
  template <typename T>
  T* game(Py_ssize_t index) const {
    return reinterpret_cast<T*>(static_cast<char*>(view_.buf) + index * view_.strides[0]);
  }

 private:
  Py_buffer view_;
};

// Two ranges of glyphs that are never looked for.
struct Scenery {
  uint16_t first, num, first_too, num_too;

  // Unsigned and wrapping: what lies below a range's start becomes large, so one compare tells.
  bool holds(uint16_t glyph) const {
    return (static_cast<uint16_t>(glyph - first) < num) | (static_cast<uint16_t>(glyph - first_too) < num_too);
  }
};

struct Nearest {
  const uint8_t* rows;
  Py_ssize_t num_glyphs, num_rows;
  int columns;
  Scenery scenery;

  // False where a glyph is out of range.
  bool add(uint16_t glyph, int cell, int64_t x, int64_t y, int32_t* key, int64_t* count) const {
    if (glyph >= num_glyphs) return false;
    const uint8_t row = rows[glyph];
    if (row >= num_rows) return true;
    const int64_t distance = std::max(std::llabs(cell % columns - x), std::llabs(cell / columns - y));
    if (distance == 0) return true;
    ++count[row];
    key[row] = std::min(key[row], static_cast<int32_t>(distance << kCellBits) | cell);
    return true;
  }
};

FOR_EACH_PROCESSOR
bool find_nearest(const Nearest& wanted, const uint16_t* map, int cells, int64_t x, int64_t y, int32_t* key,
                  int64_t* count) {
  const Scenery scenery = wanted.scenery;
  for (int begin = 0; begin < cells; begin += kBlock) {
    const uint16_t* block = map + begin;
    const int length = std::min(kBlock, cells - begin);
    if (length == kBlock) {
      uint16_t others = 0;
      for (int k = 0; k < kBlock; ++k) others |= !scenery.holds(block[k]);
      if (!others) continue;
    }
    for (int k = 0; k < length; ++k) {
      if (!scenery.holds(block[k]) && !wanted.add(block[k], begin + k, x, y, key, count)) return false;
    }
  }
  return true;
}

FOR_EACH_PROCESSOR
int64_t mark(const int16_t* map, int cells, int16_t stone, uint8_t* seen) {
  int64_t fresh = 0;
  for (int begin = 0; begin < cells; begin += kBlock) {
    const int16_t* block = map + begin;
    uint8_t* seen_block = seen + begin;
    const int length = std::min(kBlock, cells - begin);
    if (length == kBlock) {
      uint16_t any = 0;
      for (int k = 0; k < kBlock; ++k) any |= (block[k] != stone) & (static_cast<uint16_t>(seen_block[k]) == 0);
      if (!any) continue;
    }
    for (int k = 0; k < length; ++k) {
      const uint8_t shown = block[k] != stone;
      fresh += shown > seen_block[k];
      seen_block[k] |= shown;
    }
  }
  return fresh;
}

// Sets an exception where they cannot.
bool can_be_searched(const View& glyphs, const View& rows, Py_ssize_t num_rows) {
  if (rows.is_contiguous() && num_rows < kNoRow && glyphs.items() < 1 << kCellBits) return true;
  PyErr_SetString(PyExc_ValueError, "rows must be contiguous, for at most 254 kinds on maps of fewer than 2048 cells");
  return false;
}

PyObject* nearest(PyObject*, PyObject* args) {
  PyObject *glyphs_o, *x_o, *y_o, *rows_o, *key_o, *count_o;
  int first, num, first_too, num_too;
  if (!PyArg_ParseTuple(args, "OOOO(iiii)OO", &glyphs_o, &x_o, &y_o, &rows_o, &first, &num, &first_too, &num_too,
                        &key_o, &count_o)) {
    return nullptr;
  }
  View glyphs, x, y, rows, key, count;
  if (!glyphs.take(glyphs_o, "glyphs", 3, 2) || !x.take(x_o, "x", 1, 8) || !y.take(y_o, "y", 1, 8) ||
      !rows.take(rows_o, "rows", 1, 1) || !key.take(key_o, "key", 2, 4, true) ||
      !count.take(count_o, "count", 2, 8, true)) {
    return nullptr;
  }
  const Py_ssize_t games = glyphs.games(), num_rows = key.columns();
  if (!x.holds("x", games, 1) || !y.holds("y", games, 1) || !key.holds("key", games, num_rows) ||
      !count.holds("count", games, num_rows)) {
    return nullptr;
  }
  if (!can_be_searched(glyphs, rows, num_rows)) return nullptr;
  const int cells = static_cast<int>(glyphs.items());
  const Scenery scenery{static_cast<uint16_t>(first), static_cast<uint16_t>(num), static_cast<uint16_t>(first_too),
                        static_cast<uint16_t>(num_too)};
  const Nearest wanted{rows.game<const uint8_t>(0), rows.games(), num_rows, static_cast<int>(glyphs.columns()),
                       scenery};
  bool known = true;
  Py_BEGIN_ALLOW_THREADS;
  for (Py_ssize_t game = 0; known && game < games; ++game) {
    int32_t* keys = key.game<int32_t>(game);
    int64_t* counts = count.game<int64_t>(game);
    std::fill(keys, keys + num_rows, INT32_MAX);
    std::fill(counts, counts + num_rows, 0);
    known = find_nearest(wanted, glyphs.game<const uint16_t>(game), cells, *x.game<const int64_t>(game),
                         *y.game<const int64_t>(game), keys, counts);
  }
  Py_END_ALLOW_THREADS;
  if (!known) {
    PyErr_Format(PyExc_IndexError, "a glyph is not in 0..%zd", rows.games() - 1);
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* mark_seen(PyObject*, PyObject* args) {
  PyObject *glyphs_o, *seen_o, *fresh_o;
  int stone;
  if (!PyArg_ParseTuple(args, "OiOO", &glyphs_o, &stone, &seen_o, &fresh_o)) return nullptr;
  View glyphs, seen, fresh;
  if (!glyphs.take(glyphs_o, "glyphs", 3, 2) || !seen.take(seen_o, "seen", 3, 1, true) ||
      !fresh.take(fresh_o, "fresh", 1, 8, true)) {
    return nullptr;
  }
  const Py_ssize_t games = glyphs.games();
  if (!seen.holds("seen", games, glyphs.items()) || !fresh.holds("fresh", games, 1)) return nullptr;
  Py_BEGIN_ALLOW_THREADS;
  for (Py_ssize_t game = 0; game < games; ++game) {
    *fresh.game<int64_t>(game) = mark(glyphs.game<const int16_t>(game), static_cast<int>(glyphs.items()),
                                      static_cast<int16_t>(stone), seen.game<uint8_t>(game));
  }
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

PyObject* differ(PyObject*, PyObject* args) {
  PyObject *glyphs_o, *glyphs_before_o, *status_o, *status_before_o, *changed_o;
  int ignored;
  if (!PyArg_ParseTuple(args, "OOOOiO", &glyphs_o, &glyphs_before_o, &status_o, &status_before_o, &ignored,
                        &changed_o)) {
    return nullptr;
  }
  View glyphs, glyphs_before, status, status_before, changed;
  if (!glyphs.take(glyphs_o, "glyphs", 3, 2) || !glyphs_before.take(glyphs_before_o, "glyphs_before", 3, 2) ||
      !status.take(status_o, "status", 2, 8) || !status_before.take(status_before_o, "status_before", 2, 8) ||
      !changed.take(changed_o, "changed", 1, 1, true)) {
    return nullptr;
  }
  const Py_ssize_t games = glyphs.games(), fields = status.games();
  if (!glyphs_before.holds("glyphs_before", games, glyphs.items()) || !status.holds("status", fields, games) ||
      !status_before.holds("status_before", fields, games) || !changed.holds("changed", games, 1)) {
    return nullptr;
  }
  const size_t bytes = static_cast<size_t>(glyphs.items()) * sizeof(int16_t);
  Py_BEGIN_ALLOW_THREADS;
  for (Py_ssize_t game = 0; game < games; ++game) {
    bool differs = std::memcmp(glyphs.game<void>(game), glyphs_before.game<void>(game), bytes) != 0;
    for (Py_ssize_t field = 0; field < fields; ++field) {
      differs |= field != ignored && status.game<int64_t>(field)[game] != status_before.game<int64_t>(field)[game];
    }
    *changed.game<uint8_t>(game) = differs;
  }
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

// Where the hero is, from a status [fields, B].
struct Place {
  int64_t x, y, dungeon, level;

  Place(const View& status, const int* fields, Py_ssize_t game)
      : x(status.game<int64_t>(fields[0])[game]),
        y(status.game<int64_t>(fields[1])[game]),
        dungeon(status.game<int64_t>(fields[2])[game]),
        level(status.game<int64_t>(fields[3])[game]) {}
  bool on_level_of(const Place& other) const { return dungeon == other.dungeon && level == other.level; }
};

PyObject* nearby(PyObject*, PyObject* args) {
  PyObject *glyphs_o, *glyphs_before_o, *status_o, *status_before_o, *rows_o, *underfoot_o, *under_o;
  PyObject *distance_before_o, *count_before_o, *distance_o, *count_o, *approach_o;
  int fields[4], first, num, first_too, num_too, far;
  if (!PyArg_ParseTuple(args, "OOOO(iiii)OO(iiii)iOOOOOO", &glyphs_o, &glyphs_before_o, &status_o, &status_before_o,
                        &fields[0], &fields[1], &fields[2], &fields[3], &rows_o, &underfoot_o, &first, &num,
                        &first_too, &num_too, &far, &under_o, &distance_before_o, &count_before_o, &distance_o,
                        &count_o, &approach_o)) {
    return nullptr;
  }
  View glyphs, glyphs_before, status, status_before, rows, underfoot, under;
  View distance_before, count_before, distance, count, approach;
  if (!glyphs.take(glyphs_o, "glyphs", 3, 2) || !glyphs_before.take(glyphs_before_o, "glyphs_before", 3, 2) ||
      !status.take(status_o, "status", 2, 8) || !status_before.take(status_before_o, "status_before", 2, 8) ||
      !rows.take(rows_o, "rows", 1, 1) || !underfoot.take(underfoot_o, "underfoot", 1, 1) ||
      !under.take(under_o, "under", 1, 1, true) ||
      !distance_before.take(distance_before_o, "distance_before", 2, 8) ||
      !count_before.take(count_before_o, "count_before", 2, 8) ||
      !distance.take(distance_o, "distance", 2, 8, true) || !count.take(count_o, "count", 2, 8, true) ||
      !approach.take(approach_o, "approach", 2, 8, true)) {
    return nullptr;
  }
  const Py_ssize_t games = glyphs.games(), num_rows = distance.columns(), num_fields = status.games();
  if (!glyphs_before.holds("glyphs_before", games, glyphs.items()) || !status.holds("status", num_fields, games) ||
      !status_before.holds("status_before", num_fields, games) || !underfoot.holds("underfoot", rows.games(), 1) ||
      !under.holds("under", games, 1) || !distance_before.holds("distance_before", games, num_rows) ||
      !count_before.holds("count_before", games, num_rows) || !distance.holds("distance", games, num_rows) ||
      !count.holds("count", games, num_rows) || !approach.holds("approach", games, num_rows) ||
      !can_be_searched(glyphs, rows, num_rows)) {
    return nullptr;
  }
  if (*std::min_element(fields, fields + 4) < 0 || *std::max_element(fields, fields + 4) >= num_fields) {
    PyErr_Format(PyExc_IndexError, "a field of the status is not in 0..%zd", num_fields - 1);
    return nullptr;
  }
  const int cells = static_cast<int>(glyphs.items()), columns = static_cast<int>(glyphs.columns());
  const Scenery scenery{static_cast<uint16_t>(first), static_cast<uint16_t>(num), static_cast<uint16_t>(first_too),
                        static_cast<uint16_t>(num_too)};
  const Nearest wanted{rows.game<const uint8_t>(0), rows.games(), num_rows, columns, scenery};
  int32_t keys[kNoRow];
  bool known = true;
  Py_BEGIN_ALLOW_THREADS;
  for (Py_ssize_t game = 0; known && game < games; ++game) {
    const Place here(status, fields, game), before(status_before, fields, game);
    const uint16_t* map = glyphs.game<const uint16_t>(game);
    int64_t *distances = distance.game<int64_t>(game), *counts = count.game<int64_t>(game);
    int64_t* approaches = approach.game<int64_t>(game);
    const int64_t *distances_before = distance_before.game<const int64_t>(game),
                  *counts_before = count_before.game<const int64_t>(game);
    known = here.x >= 0 && here.x < columns && here.y >= 0 && here.y < cells / columns;
    if (!known) break;
    const Py_ssize_t cell = here.y * columns + here.x;
    const bool same_level = here.on_level_of(before);
    uint8_t& lies_under = *under.game<uint8_t>(game);
    if (!same_level) {
      lies_under = kNoRow;
    } else if (here.x != before.x || here.y != before.y) {
      const uint16_t glyph = glyphs_before.game<const uint16_t>(game)[cell];
      known = glyph < underfoot.games();
      if (!known) break;
      lies_under = *underfoot.game<uint8_t>(glyph);
    }
    if (map[cell] == scenery.first) {
      std::copy(distances_before, distances_before + num_rows, distances);
      std::copy(counts_before, counts_before + num_rows, counts);
    } else {
      std::fill(keys, keys + num_rows, INT32_MAX);
      std::fill(counts, counts + num_rows, 0);
      known = find_nearest(wanted, map, cells, here.x, here.y, keys, counts);
      for (Py_ssize_t row = 0; row < num_rows; ++row) distances[row] = std::min(keys[row] >> kCellBits, far);
      if (lies_under < num_rows) distances[lies_under] = 0;
    }
    for (Py_ssize_t row = 0; row < num_rows; ++row) {
      const bool can_tell = same_level && distances_before[row] != far && distances[row] != far;
      approaches[row] = can_tell ? distances_before[row] - distances[row] : 0;
    }
  }
  Py_END_ALLOW_THREADS;
  if (!known) {
    PyErr_Format(PyExc_IndexError, "a glyph is not in 0..%zd, or a hero is outside the map", rows.games() - 1);
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"nearest", nearest, METH_VARARGS, nullptr},
    {"mark_seen", mark_seen, METH_VARARGS, nullptr},
    {"differ", differ, METH_VARARGS, nullptr},
    {"nearby", nearby, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_maps", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__maps() { return PyModule_Create(&module); }
