// A copy of some ranges of memory, and the way back to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace engine {

class Snapshot {
 public:
  struct Range {
    char *start, *end;  // Whole pages.
  };

  void take(const std::vector<Range> &ranges);
  // Puts back what was taken, to the byte.
  void put_back() const;
  void forget();
  bool is_taken() const { return !pages_.empty(); }
  std::size_t bytes() const;

 private:
  struct Page {
    char *address;
    const char *content;  // Null where the page was all zero.
  };
  std::vector<Page> pages_;
  std::unique_ptr<char[]> content_;
  std::size_t num_kept_ = 0;
};

// Makes [start, end) zero; gives memory back to the system where there is much of it.
void make_zero(char *start, char *end);

}  // namespace engine
