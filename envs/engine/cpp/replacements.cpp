#include "replacements.h"

#include <fcntl.h>
#include <regex.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "cow_string.h"
#include "data_file.h"
#include "game.h"

namespace engine {
namespace {

// ---- memory

void *allocate(std::size_t size) { return Game::current()->heap()->allocate(size); }

void *allocate_zeroed(std::size_t count, std::size_t size) {
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
  void *block = allocate(bytes);
  return block ? std::memset(block, 0, bytes) : nullptr;
}

void *reallocate(void *pointer, std::size_t size) { return Game::current()->heap()->reallocate(pointer, size); }

void release(void *pointer) {
  Arena *heap = Game::current()->heap();
  if (heap->owns(pointer))
    heap->release(pointer);
  else
    std::free(pointer);
}

void *allocate_or_throw(std::size_t size) {
  void *block = allocate(size);
  if (!block) throw std::bad_alloc();
  return block;
}

// The library maps one thing, the stack of its coroutine.
void *map(void *address, std::size_t length, int access, int kind, int file, off_t offset) {
  Game *game = Game::current();
  if (length == Game::kStackBytes && file == -1) return game->stack();
  return mmap(address, length, access, kind, file, offset);
}

int unmap(void *address, std::size_t length) {
  return address == Game::current()->stack() ? 0 : munmap(address, length);
}

// Its global objects end with its memory; nothing may be called in it later.
int at_exit(void (*)(void *), void *, void *) { return 0; }

// ---- files

std::FILE *remember(std::FILE *stream) {
  if (stream) Game::current()->open_streams.push_back(stream);
  return stream;
}

int remember(int file) {
  if (file >= 0) Game::current()->open_files.push_back(file);
  return file;
}

template <typename T>
void forget(std::vector<T> &all, T one) {
  auto found = std::find(all.begin(), all.end(), one);
  if (found != all.end()) all.erase(found);
}

DataStream *data_stream(void *stream) {
  return Game::current()->heap()->owns(stream) ? static_cast<DataStream *>(stream) : nullptr;
}

std::FILE *open_stream(const char *path, const char *mode) {
  Game *game = Game::current();
  if (mode[0] != 'r' || std::strchr(mode, '+') || game->data_path() != path || !game->data())
    return remember(std::fopen(path, mode));
  auto *stream = static_cast<DataStream *>(allocate(sizeof(DataStream)));
  if (!stream) return nullptr;
  *stream = {game->data().get(), 0};
  return reinterpret_cast<std::FILE *>(stream);
}

std::FILE *open_stream_of_file(int file, const char *mode) {
  std::FILE *stream = fdopen(file, mode);
  if (stream) forget(Game::current()->open_files, file);
  return remember(stream);
}

std::FILE *open_stream_of_memory(void *memory, std::size_t size, const char *mode) {
  return remember(fmemopen(memory, size, mode));
}

int close_stream(std::FILE *stream) {
  if (data_stream(stream)) {
    release(stream);
    return 0;
  }
  forget(Game::current()->open_streams, stream);
  return std::fclose(stream);
}

std::size_t read_stream(void *target, std::size_t size, std::size_t count, std::FILE *stream) {
  DataStream *data = data_stream(stream);
  if (!data) return std::fread(target, size, count, stream);
  std::size_t left = data->position < data->file->size() ? data->file->size() - data->position : 0;
  std::size_t bytes = std::min(size * count, left);
  std::memcpy(target, data->file->bytes() + data->position, bytes);
  data->position += bytes;
  return size ? bytes / size : 0;
}

int seek_stream(std::FILE *stream, long offset, int origin) {
  DataStream *data = data_stream(stream);
  if (!data) return std::fseek(stream, offset, origin);
  long from = 0;
  if (origin == SEEK_CUR) from = static_cast<long>(data->position);
  if (origin == SEEK_END) from = static_cast<long>(data->file->size());
  if (from + offset < 0) {
    errno = EINVAL;
    return -1;
  }
  data->position = static_cast<std::size_t>(from + offset);
  return 0;
}

long tell_stream(std::FILE *stream) {
  DataStream *data = data_stream(stream);
  return data ? static_cast<long>(data->position) : std::ftell(stream);
}

// NetHack reads the archive's directory so, once in each start from the file.
int scan_stream(std::FILE *stream, const char *format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  int found = EOF;
  if (DataStream *data = data_stream(stream)) {
    constexpr std::size_t longest = 4096;
    std::size_t left = data->position < data->file->size() ? data->file->size() - data->position : 0;
    std::FILE *rest =
        left ? fmemopen(const_cast<char *>(data->file->bytes()) + data->position, std::min(left, longest), "r")
             : nullptr;
    if (rest) {
      found = std::vfscanf(rest, format, arguments);
      data->position += static_cast<std::size_t>(std::ftell(rest));
      std::fclose(rest);
    }
  } else {
    found = std::vfscanf(stream, format, arguments);
  }
  va_end(arguments);
  return found;
}

void rewind_stream(std::FILE *stream) {
  if (DataStream *data = data_stream(stream))
    data->position = 0;
  else
    std::rewind(stream);
}

int open_file(const char *path, int flags, unsigned mode) { return remember(open(path, flags, mode)); }

int create_file(const char *path, unsigned mode) { return remember(creat(path, mode)); }

int close_file(int file) {
  forget(Game::current()->open_files, file);
  return close(file);
}

int compile_pattern(regex_t *pattern, const char *text, int flags) {
  int failed = regcomp(pattern, text, flags);
  if (!failed) Game::current()->compiled_patterns.push_back(pattern);
  return failed;
}

void free_pattern(regex_t *pattern) {
  forget(Game::current()->compiled_patterns, static_cast<void *>(pattern));
  regfree(pattern);
}

// ---- where NetHack begins to use its seeds

void swap_to_levels(int dungeon) {
  Game::current()->note_need_of_seeds(__builtin_frame_address(0));
  Game::current()->original<void(int)>("nle_swap_to_lgen")(dungeon);
}

std::uint64_t next_random(void *state) {
  Game::current()->note_need_of_seeds(__builtin_frame_address(0));
  return Game::current()->original<std::uint64_t(void *)>("isaac64_next_uint64")(state);
}

std::uint64_t next_random_below(void *state, std::uint64_t limit) {
  Game::current()->note_need_of_seeds(__builtin_frame_address(0));
  return Game::current()->original<std::uint64_t(void *, std::uint64_t)>("isaac64_next_uint")(state, limit);
}

void fill_time(std::tm *time, unsigned long seed) {
  Game::current()->note_need_of_seeds(__builtin_frame_address(0));
  Game::current()->original<void(std::tm *, unsigned long)>("nle_fill_fixed_tm")(time, seed);
}

template <typename Function>
void *address(Function *function) {
  return reinterpret_cast<void *>(function);
}

}  // namespace

const Replacements &replaced_functions() {
  static const Replacements all = [] {
    Replacements table = string_functions();
    table.insert({
        {"malloc", address(allocate)},
        {"calloc", address(allocate_zeroed)},
        {"realloc", address(reallocate)},
        {"free", address(release)},
        {"_Znwm", address(allocate_or_throw)},
        {"_ZdlPv", address(release)},
        {"mmap", address(map)},
        {"munmap", address(unmap)},
        {"__cxa_atexit", address(at_exit)},
        // Absent: a game has one thread, and counts the owners of its strings without locks.
        {"__pthread_key_create", nullptr},
        {"fopen", address(open_stream)},
        {"fdopen", address(open_stream_of_file)},
        {"fmemopen", address(open_stream_of_memory)},
        {"fclose", address(close_stream)},
        {"fread", address(read_stream)},
        {"fseek", address(seek_stream)},
        {"ftell", address(tell_stream)},
        {"fscanf", address(scan_stream)},
        {"rewind", address(rewind_stream)},
        {"open", address(open_file)},
        {"creat", address(create_file)},
        {"close", address(close_file)},
        {"regcomp", address(compile_pattern)},
        {"regfree", address(free_pattern)},
    });
    return table;
  }();
  return all;
}

const Replacements &watched_functions() {
  static const Replacements all = {
      {"nle_swap_to_lgen", address(swap_to_levels)},
      {"isaac64_next_uint64", address(next_random)},
      {"isaac64_next_uint", address(next_random_below)},
      {"nle_fill_fixed_tm", address(fill_time)},
  };
  return all;
}

}  // namespace engine
