// NetHack's archive of read-only data (nhdat), held in memory and shared by the games that read the same file.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

namespace engine {

class DataFile {
 public:
  // The file's present content; from memory where it was read before. Null where it cannot be read.
  static std::shared_ptr<const DataFile> read(const std::string &path);
  // Whether `path` still leads to the same content, as far as the file system tells.
  bool is_still_at(const std::string &path) const;

  const char *bytes() const { return bytes_.data(); }
  std::size_t size() const { return bytes_.size(); }

 private:
  explicit DataFile(const struct stat &about) : about_(about) {}
  struct stat about_;
  std::vector<char> bytes_;
};

// A position in a data file: what the library holds in place of a FILE. Lives on the game's heap.
struct DataStream {
  const DataFile *file;
  std::size_t position;
};

}  // namespace engine
