// One game of NetHack in its own image of the library, with its own heap and stack.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "library.h"
#include "nle_abi.h"
#include "snapshot.h"

namespace engine {

class DataFile;

class Game {
 public:
  // Whether the library is laid out as `nle_abi.h` says. Throws std::runtime_error where it is not.
  static void check(const Library &library);
  // `folder` is NetHack's HACKDIR. Throws std::runtime_error or std::length_error.
  Game(std::shared_ptr<const Library> library, const std::string &folder, const std::string &options,
       bool spawn_monsters, bool fix_moon_phase);
  ~Game();
  Game(const Game &) = delete;
  Game &operator=(const Game &) = delete;

  void set_seeds(unsigned long core, unsigned long disp, unsigned long lgen);
  // Begins an episode and runs to its first question for a key.
  void reset();
  // Presses a key and runs to the next question, or to the end.
  void step(int key);
  void close();

  Observation &observation() { return observation_; }
  bool is_started() const { return context_ != nullptr; }
  bool is_closed() const { return base_ == nullptr; }
  // Whether the next `reset` can go back to the snapshot, as long as the data file stays the same.
  bool has_snapshot() const { return snapshot_.is_taken(); }
  long *birthday() const { return reinterpret_cast<long *>(base_ + at_.birthday); }
  std::size_t snapshot_bytes() const { return snapshot_.bytes(); }
  std::size_t heap_bytes() const;

  // For what the library calls in place of libc's functions.
  static Game *current();
  Arena *heap() const { return heap_; }
  char *stack() const { return stack_; }
  void note_need_of_seeds(const void *frame);
  const std::string &data_path() const { return data_path_; }
  const std::shared_ptr<const DataFile> &data() const { return data_; }
  template <typename Function>
  Function *original(const char *name) const {
    return function<Function>(library_->offset_of(name));
  }
  std::vector<std::FILE *> open_streams;
  std::vector<int> open_files;
  std::vector<void *> compiled_patterns;

  static constexpr std::size_t kStackBytes = 1 << 16;

 private:
  template <typename Function>
  Function *function(std::size_t offset) const {
    return reinterpret_cast<Function *>(base_ + offset);
  }
  void boot();
  void take_snapshot();
  void seed();
  void run();
  void close_files();

  struct Places {  // Offsets in the image.
    explicit Places(const Library &library);
    std::size_t settings, birthday, context, start, step, init_random, core_random, display_random, init_levels, jump;
  };

  std::shared_ptr<const Library> library_;
  const Places at_;
  std::size_t reserved_ = 0;
  char *reserved_at_ = nullptr, *base_ = nullptr, *stack_ = nullptr;
  Arena *heap_ = nullptr;
  std::string folder_, data_path_;
  std::shared_ptr<const DataFile> data_;
  std::unique_ptr<Settings> settings_;
  Observation observation_{};
  Context *context_ = nullptr;
  bool watches_ = false, stopped_ = false;
  Snapshot snapshot_;
};

}  // namespace engine
