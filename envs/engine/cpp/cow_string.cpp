#include "cow_string.h"

#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "game.h"

namespace engine {
namespace {

// A string is one pointer to its characters; this stands before them. All empty strings that were never
// written share one that is not counted.
struct Header {
  std::size_t length;
  std::size_t capacity;
  int other_owners;  // Below zero: one owner, who has handed out references into it.
};
struct String {
  char *text;
};

alignas(16) char empty_storage[sizeof(Header) + 8];

Header *header_of(const String *string) { return reinterpret_cast<Header *>(string->text) - 1; }
char *text_of(Header *header) { return reinterpret_cast<char *>(header + 1); }
bool is_empty_storage(const Header *header) { return reinterpret_cast<const char *>(header) == empty_storage; }

Header *create(std::size_t capacity, std::size_t old_capacity, const void *) {
  constexpr std::size_t longest = (std::size_t{1} << 62) - 32;
  if (capacity > longest) throw std::length_error("basic_string::_S_create");
  if (capacity > old_capacity && capacity < 2 * old_capacity) capacity = 2 * old_capacity;
  auto *header = static_cast<Header *>(Game::current()->heap()->allocate(sizeof(Header) + capacity + 1));
  if (!header) throw std::bad_alloc();
  header->capacity = capacity;
  header->other_owners = 0;
  return header;
}

void destroy(Header *header, const void *) { Game::current()->heap()->release(header); }

void let_go(Header *header) {
  if (!is_empty_storage(header) && header->other_owners-- <= 0) destroy(header, nullptr);
}

void finish(Header *header, std::size_t length) {
  if (is_empty_storage(header)) return;
  header->other_owners = 0;
  header->length = length;
  text_of(header)[length] = '\0';
}

// The characters of `string` for one more owner.
char *share(const String *string) {
  Header *header = header_of(string);
  if (header->other_owners >= 0) {
    if (!is_empty_storage(header)) ++header->other_owners;
    return string->text;
  }
  Header *copy = create(header->length, header->capacity, nullptr);
  std::memcpy(text_of(copy), string->text, header->length);
  finish(copy, header->length);
  return text_of(copy);
}

String *assign_characters(String *string, const char *characters, std::size_t length) {
  Header *header = header_of(string);
  if (header->other_owners <= 0 && length <= header->capacity) {
    if (length) std::memmove(string->text, characters, length);
    finish(header, length);
    return string;
  }
  Header *fresh = create(length, header->capacity, nullptr);
  std::memcpy(text_of(fresh), characters, length);
  finish(fresh, length);
  let_go(header);
  string->text = text_of(fresh);
  return string;
}

String *assign_string(String *string, const String *other) {
  if (string->text != other->text) {
    char *text = share(other);
    let_go(header_of(string));
    string->text = text;
  }
  return string;
}

void construct_copy(String *string, const String *other) { string->text = share(other); }

template <typename Function>
void *address(Function *function) {
  return reinterpret_cast<void *>(function);
}

}  // namespace

Replacements string_functions() {
  return {
      {"_ZNSs4_Rep20_S_empty_rep_storageE", empty_storage},
      {"_ZNSs4_Rep9_S_createEmmRKSaIcE", address(create)},
      {"_ZNSs4_Rep10_M_destroyERKSaIcE", address(destroy)},
      {"_ZNSs6assignEPKcm", address(assign_characters)},
      {"_ZNSs6assignERKSs", address(assign_string)},
      {"_ZNSsC1ERKSs", address(construct_copy)},
  };
}

}  // namespace engine
