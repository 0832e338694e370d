// A shared library that can be mapped many times: one copy of its code in memory, its variables once for each game.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace engine {

// Which functions of ours the library gets in place of those that it asks for, by symbol name.
using Replacements = std::unordered_map<std::string_view, void *>;

class Library {
 public:
  // Reads and checks the file. `replaced` stay for good; `watched` are functions of the library itself whose
  // callers get ours until `stop_watching`.
  // Throws std::runtime_error with one sentence where it holds anything that is not understood here.
  Library(const std::string &path, const Replacements &replaced, const Replacements &watched);
  ~Library();
  Library(const Library &) = delete;
  Library &operator=(const Library &) = delete;

  std::size_t span() const { return span_; }  // Bytes of address space for one image.
  // Bytes of address space that `map` takes before an image; where these start must be aligned.
  std::size_t lead() const { return lead_; }
  static constexpr std::size_t kAlignment = std::size_t{1} << 21;
  // Offset of a symbol that the library defines. Throws std::runtime_error where it does not, or has another size.
  std::size_t offset_of(const std::string &name, std::size_t size = 0) const;

  // Maps an image at `base`, where `span()` bytes are reserved, and `lead()` before; its variables are not set yet.
  void map(char *base) const;
  // Gives the variables of an image their first values, and runs its initialisers.
  void load(char *base) const;
  // Lets the watched functions be called directly again, and makes the tables of addresses read-only.
  void stop_watching(char *base) const;

  // The part of an image that changes while it runs.
  std::size_t variables_start() const { return variables_start_; }
  std::size_t variables_end() const { return span_; }

 private:
  struct Bound {  // `base + value` or, where absolute, `value`, is written at `base + offset`.
    std::size_t offset;
    std::uint64_t value;
    bool absolute;
  };
  struct Needs;

  void read_segments();
  void gather_constants();
  void read_dynamic();
  void read_symbols();
  void bind(const Replacements &replaced, const Replacements &watched);
  void let_go();
  void bind_table(std::size_t table, std::size_t bytes, const Replacements &replaced, const Replacements &watched,
                  const Needs &needs);
  template <typename T>
  const T *at(std::size_t address, std::size_t count = 1) const;

  std::string path_;
  int constants_ = -1;  // The file in memory.
  const char *bytes_ = nullptr;
  std::size_t num_bytes_ = 0;
  std::vector<Elf64_Phdr> segments_;
  Elf64_Phdr data_{};
  std::unordered_map<std::int64_t, std::uint64_t> dynamic_;
  std::vector<std::string> needed_;
  std::unordered_map<std::string_view, const Elf64_Sym *> defined_;
  std::size_t num_symbols_ = 0, span_ = 0, variables_start_ = 0;
  std::size_t lead_ = 0, constants_end_ = 0;
  std::vector<Bound> bound_;
  std::vector<Bound> unwatched_;
};

}  // namespace engine
