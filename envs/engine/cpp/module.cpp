// The Python module: `Library` and `Game`.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "game.h"
#include "replacements.h"

namespace {

using engine::Game;
using engine::Library;
using engine::Observation;

struct Field {
  const char *name;
  std::size_t offset;
  char format;
  int num_dimensions;
  Py_ssize_t shape[3];
};

#define AT(member) offsetof(Observation, member)
constexpr Py_ssize_t kRows = engine::kRows, kColumns = engine::kColumns;
constexpr Field kFields[] = {
    {"glyphs", AT(glyphs), 'h', 2, {kRows, kColumns, 1}},
    {"chars", AT(chars), 'B', 2, {kRows, kColumns, 1}},
    {"colors", AT(colors), 'B', 2, {kRows, kColumns, 1}},
    {"specials", AT(specials), 'B', 2, {kRows, kColumns, 1}},
    {"blstats", AT(blstats), 'l', 1, {27, 1, 1}},
    {"message", AT(message), 'B', 1, {256, 1, 1}},
    {"program_state", AT(program_state), 'i', 1, {6, 1, 1}},
    {"internal", AT(internal), 'i', 1, {9, 1, 1}},
    {"inv_glyphs", AT(inv_glyphs), 'h', 1, {engine::kInventory, 1, 1}},
    {"inv_letters", AT(inv_letters), 'B', 1, {engine::kInventory, 1, 1}},
    {"inv_oclasses", AT(inv_oclasses), 'B', 1, {engine::kInventory, 1, 1}},
    {"inv_strs", AT(inv_strs), 'B', 2, {engine::kInventory, engine::kText, 1}},
    {"screen_descriptions", AT(screen_descriptions), 'B', 3, {kRows, kColumns, engine::kText}},
    {"tty_chars", AT(tty_chars), 'B', 2, {24, 80, 1}},
    {"tty_colors", AT(tty_colors), 'b', 2, {24, 80, 1}},
    {"tty_cursor", AT(tty_cursor), 'B', 1, {2, 1, 1}},
    {"misc", AT(misc), 'i', 1, {3, 1, 1}},
};
#undef AT

struct LibraryObject {
  PyObject_HEAD
  std::shared_ptr<const Library> library;
};

struct GameObject {
  PyObject_HEAD
  std::unique_ptr<Game> game;
  std::vector<Py_buffer> buffers;
};

PyTypeObject *library_type = nullptr;

void raise_as_python(const std::exception &error, PyObject *kind) { PyErr_SetString(kind, error.what()); }

// Runs `body`; turns C++ exceptions into Python's.
template <typename Body>
bool guarded(Body body, PyObject *kind = PyExc_RuntimeError) {
  try {
    body();
    return true;
  } catch (const std::bad_alloc &) {
    PyErr_NoMemory();
  } catch (const std::length_error &error) {
    raise_as_python(error, PyExc_ValueError);
  } catch (const std::exception &error) {
    raise_as_python(error, kind);
  }
  return false;
}

// ---- Library

PyObject *library_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static const char *names[] = {"path", nullptr};
  PyObject *path = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&", const_cast<char **>(names), PyUnicode_FSConverter, &path))
    return nullptr;
  auto *self = reinterpret_cast<LibraryObject *>(type->tp_alloc(type, 0));
  if (self) {
    new (&self->library) std::shared_ptr<const Library>();
    bool done = guarded(
        [&] {
          auto library = std::make_shared<const Library>(PyBytes_AS_STRING(path), engine::replaced_functions(),
                                                         engine::watched_functions());
          Game::check(*library);
          self->library = std::move(library);
        },
        PyExc_ValueError);
    if (!done) Py_CLEAR(self);
  }
  Py_DECREF(path);
  return reinterpret_cast<PyObject *>(self);
}

void library_dealloc(PyObject *object) {
  auto *self = reinterpret_cast<LibraryObject *>(object);
  PyTypeObject *type = Py_TYPE(object);
  self->library.~shared_ptr();
  type->tp_free(object);
  Py_DECREF(type);
}

PyType_Slot library_slots[] = {
    {Py_tp_new, reinterpret_cast<void *>(library_new)},
    {Py_tp_dealloc, reinterpret_cast<void *>(library_dealloc)},
    {Py_tp_doc, const_cast<char *>("Library(path)\n--\n\nNLE's library, to be mapped once for each game.\n\n"
                                   "Raises:\n    ValueError: it is not one that this loader understands.")},
    {0, nullptr},
};
PyType_Spec library_spec = {"envs.engine._native.Library", sizeof(LibraryObject), 0, Py_TPFLAGS_DEFAULT,
                            library_slots};

// ---- Game

GameObject *as_game(PyObject *object) { return reinterpret_cast<GameObject *>(object); }

PyObject *game_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static const char *names[] = {"library", "folder", "options", "spawn_monsters", "fix_moon_phase", nullptr};
  PyObject *library = nullptr, *folder = nullptr;
  const char *options = nullptr;
  int spawn_monsters = 1, fix_moon_phase = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O&spp", const_cast<char **>(names), library_type, &library,
                                   PyUnicode_FSConverter, &folder, &options, &spawn_monsters, &fix_moon_phase))
    return nullptr;
  auto *self = reinterpret_cast<GameObject *>(type->tp_alloc(type, 0));
  if (self) {
    new (&self->game) std::unique_ptr<Game>();
    new (&self->buffers) std::vector<Py_buffer>();
    bool done = guarded([&] {
      self->game = std::make_unique<Game>(reinterpret_cast<LibraryObject *>(library)->library,
                                          PyBytes_AS_STRING(folder), options, spawn_monsters, fix_moon_phase);
    });
    if (!done) Py_CLEAR(self);
  }
  Py_DECREF(folder);
  return reinterpret_cast<PyObject *>(self);
}

void release_buffers(GameObject *self) {
  for (Py_buffer &buffer : self->buffers) PyBuffer_Release(&buffer);
  self->buffers.clear();
}

void game_dealloc(PyObject *object) {
  GameObject *self = as_game(object);
  PyTypeObject *type = Py_TYPE(object);
  self->game.~unique_ptr();
  release_buffers(self);
  self->buffers.~vector();
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject *game_close(PyObject *object, PyObject *) {
  as_game(object)->game->close();
  release_buffers(as_game(object));
  Py_RETURN_NONE;
}

bool is_open(GameObject *self, const char *method) {
  if (!self->game->is_closed()) return true;
  PyErr_Format(PyExc_RuntimeError, "%s called on a closed game", method);
  return false;
}

// The buffer as a row that the library can fill.
bool take_row(GameObject *self, const Field &field, PyObject *array) {
  Py_buffer buffer;
  if (PyObject_GetBuffer(array, &buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE)) return false;
  bool fits = buffer.ndim == field.num_dimensions && buffer.format && buffer.format[0] == field.format &&
              buffer.format[1] == '\0';
  for (int i = 0; fits && i < field.num_dimensions; ++i) fits = buffer.shape[i] == field.shape[i];
  if (!fits) {
    PyErr_Format(PyExc_ValueError, "the array for '%s' has another shape or type than NetHack fills", field.name);
    PyBuffer_Release(&buffer);
    return false;
  }
  self->buffers.push_back(buffer);
  std::memcpy(reinterpret_cast<char *>(&self->game->observation()) + field.offset, &buffer.buf, sizeof buffer.buf);
  return true;
}

PyObject *game_set_buffers(PyObject *object, PyObject *args, PyObject *kwargs) {
  GameObject *self = as_game(object);
  if (!is_open(self, "set_buffers")) return nullptr;
  if (PyTuple_GET_SIZE(args)) {
    PyErr_SetString(PyExc_TypeError, "set_buffers takes keyword arguments only");
    return nullptr;
  }
  if (self->game->is_started()) {
    PyErr_SetString(PyExc_RuntimeError, "set_buffers called after reset()");
    return nullptr;
  }
  for (const Field &field : kFields) {
    void *none = nullptr;
    std::memcpy(reinterpret_cast<char *>(&self->game->observation()) + field.offset, &none, sizeof none);
  }
  release_buffers(self);
  PyObject *key = nullptr, *array = nullptr;
  Py_ssize_t position = 0;
  while (kwargs && PyDict_Next(kwargs, &position, &key, &array)) {
    const Field *found = nullptr;
    for (const Field &field : kFields)
      if (PyUnicode_CompareWithASCIIString(key, field.name) == 0) found = &field;
    if (!found) {
      PyErr_Format(PyExc_TypeError, "NetHack fills no '%U'", key);
      return nullptr;
    }
    if (array != Py_None && !take_row(self, *found, array)) return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject *game_set_initial_seeds(PyObject *object, PyObject *args) {
  PyObject *given[3];
  if (!PyArg_ParseTuple(args, "OOO", &given[0], &given[1], &given[2])) return nullptr;
  unsigned long seeds[3];
  for (int i = 0; i < 3; ++i) {
    PyObject *index = PyNumber_Index(given[i]);
    if (!index) return nullptr;
    seeds[i] = PyLong_AsUnsignedLong(index);  // refuses what is negative or too large
    Py_DECREF(index);
    if (PyErr_Occurred()) return nullptr;
  }
  as_game(object)->game->set_seeds(seeds[0], seeds[1], seeds[2]);
  Py_RETURN_NONE;
}

PyObject *game_reset(PyObject *object, PyObject *) {
  GameObject *self = as_game(object);
  if (!is_open(self, "reset") || !guarded([&] { self->game->reset(); })) return nullptr;
  Py_RETURN_NONE;
}

PyObject *game_step(PyObject *object, PyObject *argument) {
  GameObject *self = as_game(object);
  long key = PyLong_AsLong(argument);
  if (key == -1 && PyErr_Occurred()) return nullptr;
  if (!self->game->is_started()) {
    PyErr_SetString(PyExc_RuntimeError, "step called without reset()");
    return nullptr;
  }
  if (self->game->observation().done) {
    PyErr_SetString(PyExc_RuntimeError, "Called step on finished NetHack");
    return nullptr;
  }
  self->game->step(static_cast<int>(key));
  Py_RETURN_NONE;
}

PyObject *game_done(PyObject *object, PyObject *) {
  return PyBool_FromLong(as_game(object)->game->observation().done);
}

PyObject *game_how_done(PyObject *object, PyObject *) {
  return PyLong_FromLong(as_game(object)->game->observation().how_done);
}

PyObject *game_in_normal_game(PyObject *object, PyObject *) {
  return PyBool_FromLong(as_game(object)->game->observation().in_normal_game);
}

PyObject *game_birthday(PyObject *object, void *) {
  if (!is_open(as_game(object), "birthday")) return nullptr;
  return PyLong_FromLong(*as_game(object)->game->birthday());
}

int game_set_birthday(PyObject *object, PyObject *value, void *) {
  if (!is_open(as_game(object), "birthday")) return -1;
  if (!value) {
    PyErr_SetString(PyExc_AttributeError, "birthday cannot be deleted");
    return -1;
  }
  long seconds = PyLong_AsLong(value);
  if (seconds == -1 && PyErr_Occurred()) return -1;
  *as_game(object)->game->birthday() = seconds;
  return 0;
}

PyObject *game_has_snapshot(PyObject *object, void *) {
  return PyBool_FromLong(as_game(object)->game->has_snapshot());
}

PyObject *game_memory(PyObject *object, void *) {
  const Game &game = *as_game(object)->game;
  return Py_BuildValue("(nn)", static_cast<Py_ssize_t>(game.snapshot_bytes()),
                       static_cast<Py_ssize_t>(game.heap_bytes()));
}

template <typename Function>
PyCFunction method(Function *function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef game_methods[] = {
    {"set_buffers", method(game_set_buffers), METH_VARARGS | METH_KEYWORDS,
     "set_buffers(**rows)\n--\n\nArrays to write observations into; before the first reset."},
    {"set_initial_seeds", game_set_initial_seeds, METH_VARARGS,
     "set_initial_seeds(core, disp, lgen, /)\n--\n\nSeeds of the next episodes."},
    {"reset", game_reset, METH_NOARGS, "reset()\n--\n\nBegin an episode and run to its first question for a key."},
    {"step", game_step, METH_O, "step(key, /)\n--\n\nPress a key and run to the next question for one."},
    {"done", game_done, METH_NOARGS, "done()\n--\n\nWhether NetHack has ended."},
    {"how_done", game_how_done, METH_NOARGS, "how_done()\n--\n\nHow NetHack ended, as a number."},
    {"in_normal_game", game_in_normal_game, METH_NOARGS, "in_normal_game()\n--\n\nWhether a map is on show."},
    {"close", game_close, METH_NOARGS, "close()\n--\n\nFree the game's memory."},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef game_members[] = {
    {"birthday", game_birthday, game_set_birthday, "When the game began, in seconds, as NetHack sees it.", nullptr},
    {"has_snapshot", game_has_snapshot, nullptr, "Whether the next reset goes back to a snapshot.", nullptr},
    {"memory", game_memory, nullptr, "Bytes of the snapshot, and of the heap in use.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot game_slots[] = {
    {Py_tp_new, reinterpret_cast<void *>(game_new)},
    {Py_tp_dealloc, reinterpret_cast<void *>(game_dealloc)},
    {Py_tp_methods, game_methods},
    {Py_tp_getset, game_members},
    {Py_tp_doc, const_cast<char *>("Game(library, folder, options, spawn_monsters, fix_moon_phase)\n--\n\n"
                                   "One game of NetHack.")},
    {0, nullptr},
};
PyType_Spec game_spec = {"envs.engine._native.Game", sizeof(GameObject), 0, Py_TPFLAGS_DEFAULT, game_slots};

PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "envs.engine._native", "NetHack games that share their code and start from a snapshot.",
    -1, nullptr, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
  PyObject *module = PyModule_Create(&module_definition);
  PyObject *library = PyType_FromSpec(&library_spec);
  PyObject *game = PyType_FromSpec(&game_spec);
  if (!module || !library || !game || PyModule_AddObjectRef(module, "Library", library) ||
      PyModule_AddObjectRef(module, "Game", game)) {
    Py_XDECREF(module);
    Py_XDECREF(library);
    Py_XDECREF(game);
    return nullptr;
  }
  library_type = reinterpret_cast<PyTypeObject *>(library);  // Lives as long as the process.
  Py_DECREF(game);
  return module;
}
