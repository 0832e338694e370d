#include "snapshot.h"

#include <sys/mman.h>

#include <cstring>

namespace engine {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kKept = std::size_t{1} << 19;  // Freed memory above this goes back to the system.

bool is_zero(const char *page) {
  const auto *words = reinterpret_cast<const std::uint64_t *>(page);
  for (std::size_t i = 0; i < kPage / 8; i += 8) {
    if (words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] |
        words[i + 7])
      return false;
  }
  return true;
}

}  // namespace

void Snapshot::take(const std::vector<Range> &ranges) {
  forget();
  for (const Range &range : ranges) {
    for (char *page = range.start; page < range.end; page += kPage) {
      bool zero = is_zero(page);
      pages_.push_back({page, zero ? nullptr : page});
      num_kept_ += !zero;
    }
  }
  content_.reset(new char[num_kept_ * kPage]);
  char *next = content_.get();
  for (Page &page : pages_) {
    if (!page.content) continue;
    page.content = static_cast<const char *>(std::memcpy(next, page.content, kPage));
    next += kPage;
  }
}

void Snapshot::put_back() const {
  for (const Page &page : pages_) {
    if (page.content)
      std::memcpy(page.address, page.content, kPage);
    else if (!is_zero(page.address))  // Most stay untouched, and need no memory then.
      std::memset(page.address, 0, kPage);
  }
}

void Snapshot::forget() {
  pages_.clear();
  content_.reset();
  num_kept_ = 0;
}

std::size_t Snapshot::bytes() const { return num_kept_ * kPage + pages_.size() * sizeof(Page); }

void make_zero(char *start, char *end) {
  if (end > start + kKept) {
    auto first = (reinterpret_cast<std::uintptr_t>(start) + kKept + kPage - 1) / kPage * kPage;
    char *rest = reinterpret_cast<char *>(first);
    if (rest < end && madvise(rest, static_cast<std::size_t>(end - rest), MADV_DONTNEED) == 0) end = rest;
  }
  if (start < end) std::memset(start, 0, static_cast<std::size_t>(end - start));
}

}  // namespace engine
