// The heap of one game: all of it inside one range of addresses, so that it can be copied and put back.
#pragma once

#include <cstddef>
#include <cstdint>

namespace engine {

// Lives at the start of the memory that it hands out, so that putting the memory back puts the heap back.
class Arena {
 public:
  // Makes an empty heap in [start, start + size), which must be zero.
  static Arena *create(void *start, std::size_t size);

  // At least `size` bytes, aligned to 16; null when the arena is full. Their content is what was there.
  void *allocate(std::size_t size);
  void *reallocate(void *pointer, std::size_t size);
  void release(void *pointer);

  bool owns(const void *pointer) const {
    auto address = reinterpret_cast<std::uintptr_t>(pointer);
    return address - reinterpret_cast<std::uintptr_t>(this) < size_;
  }
  // End of what has ever been handed out.
  char *used_end() const { return next_; }

 private:
  // Blocks of up to 1 KiB are rounded to 16 bytes; larger ones to four steps in each power of two.
  static constexpr std::size_t kSmall = 64, kClasses = kSmall + 4 * 24;
  struct Block {
    std::size_t block_class;
    Block *next_free;  // Where a block in use holds the first bytes of its user.
  };

  static std::size_t class_of(std::size_t bytes);
  static std::size_t bytes_of(std::size_t block_class);

  char *next_;
  char *end_;
  std::size_t size_;
  Block *free_[kClasses];
};

}  // namespace engine
