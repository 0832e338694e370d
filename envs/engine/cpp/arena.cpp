#include "arena.h"

#include <cstring>

namespace engine {
namespace {

constexpr std::size_t kHeader = sizeof(std::size_t);

char *user_part(void *block) { return static_cast<char *>(block) + kHeader; }

}  // namespace

Arena *Arena::create(void *start, std::size_t size) {
  auto *arena = static_cast<Arena *>(start);
  std::memset(static_cast<void *>(arena), 0, sizeof(Arena));
  arena->size_ = size;
  arena->end_ = static_cast<char *>(start) + size;
  // A block starts 8 bytes before a multiple of 16: what follows its header is aligned to 16.
  std::size_t first = (sizeof(Arena) + 15) / 16 * 16 + 16 - kHeader;
  arena->next_ = static_cast<char *>(start) + first;
  return arena;
}

std::size_t Arena::class_of(std::size_t bytes) {
  if (bytes <= 16 * kSmall) return (bytes + 15) / 16 - 1;
  // 1024 < bytes: the power of two below, and which quarter of the way to the next one.
  std::size_t log2 = 63 - static_cast<std::size_t>(__builtin_clzl(bytes - 1));
  std::size_t quarter = ((bytes - 1) >> (log2 - 2)) & 3;
  return kSmall + 4 * (log2 - 10) + quarter;
}

std::size_t Arena::bytes_of(std::size_t block_class) {
  if (block_class < kSmall) return 16 * (block_class + 1);
  std::size_t log2 = 10 + (block_class - kSmall) / 4, quarter = (block_class - kSmall) % 4;
  return (std::size_t{1} << log2) + (quarter + 1) * (std::size_t{1} << (log2 - 2));
}

void *Arena::allocate(std::size_t size) {
  if (size > size_) return nullptr;
  std::size_t block_class = class_of(size + kHeader);
  if (Block *block = free_[block_class]) {
    free_[block_class] = block->next_free;
    return user_part(block);
  }
  std::size_t bytes = bytes_of(block_class);
  if (static_cast<std::size_t>(end_ - next_) < bytes) return nullptr;
  auto *block = reinterpret_cast<Block *>(next_);
  next_ += bytes;
  block->block_class = block_class;
  return user_part(block);
}

void *Arena::reallocate(void *pointer, std::size_t size) {
  if (!pointer) return allocate(size);
  auto *block = reinterpret_cast<Block *>(static_cast<char *>(pointer) - kHeader);
  std::size_t room = bytes_of(block->block_class) - kHeader;
  if (size <= room) return pointer;
  void *larger = allocate(size);
  if (!larger) return nullptr;
  std::memcpy(larger, pointer, room);
  release(pointer);
  return larger;
}

void Arena::release(void *pointer) {
  auto *block = reinterpret_cast<Block *>(static_cast<char *>(pointer) - kHeader);
  block->next_free = free_[block->block_class];
  free_[block->block_class] = block;
}

}  // namespace engine
