#include "library.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace engine {
namespace {

constexpr std::size_t kPage = 4096;

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

std::size_t page_down(std::size_t address) { return address / kPage * kPage; }
std::size_t page_up(std::size_t address) { return (address + kPage - 1) / kPage * kPage; }

[[noreturn]] void refuse(const std::string &path, const std::string &why) {
  throw std::runtime_error(path + " " + why);
}

}  // namespace

// Versions and handles to find what the library imports.
struct Library::Needs {
  std::vector<void *> handles;
  std::unordered_map<unsigned, const char *> versions;

  void *find(const char *name, unsigned version) const {
    auto known = versions.find(version);
    for (void *handle : handles) {
      void *address = known != versions.end() ? dlvsym(handle, name, known->second) : nullptr;
      if (!address) address = dlsym(handle, name);
      if (address) return address;
    }
    return nullptr;
  }
};

Library::Library(const std::string &path, const Replacements &replaced, const Replacements &watched) : path_(path) {
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) refuse(path_, std::string("cannot be opened: ") + std::strerror(errno));
  struct stat about{};
  if (fstat(file, &about) == 0) num_bytes_ = static_cast<std::size_t>(about.st_size);
  void *mapped = num_bytes_ ? mmap(nullptr, num_bytes_, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  close(file);
  if (mapped == MAP_FAILED) refuse(path_, "cannot be mapped into memory");
  bytes_ = static_cast<const char *>(mapped);
  try {
    read_segments();
    read_dynamic();
    read_symbols();
    bind(replaced, watched);
    gather_constants();
  } catch (...) {
    let_go();
    throw;
  }
}

Library::~Library() { let_go(); }

void Library::let_go() {
  munmap(const_cast<char *>(bytes_), num_bytes_);
  if (constants_ >= 0) close(constants_);
}

// What the file holds for an address of the image.
template <typename T>
const T *Library::at(std::size_t address, std::size_t count) const {
  for (const Elf64_Phdr &segment : segments_) {
    if (address < segment.p_vaddr || address - segment.p_vaddr >= segment.p_filesz) continue;
    std::size_t inside = address - segment.p_vaddr;
    if (segment.p_filesz - inside < count * sizeof(T)) break;
    return reinterpret_cast<const T *>(bytes_ + segment.p_offset + inside);
  }
  refuse(path_, "is damaged: a table lies outside its segments");
}

void Library::read_segments() {
  const auto *header = reinterpret_cast<const Elf64_Ehdr *>(bytes_);
  if (num_bytes_ < sizeof(Elf64_Ehdr) || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 || header->e_type != ET_DYN)
    refuse(path_, "is not an x86-64 shared library");
  if (header->e_phoff + header->e_phnum * sizeof(Elf64_Phdr) > num_bytes_) refuse(path_, "is cut short");
  const auto *entries = reinterpret_cast<const Elf64_Phdr *>(bytes_ + header->e_phoff);
  for (int i = 0; i < header->e_phnum; ++i) {
    const Elf64_Phdr &entry = entries[i];
    if (entry.p_type == PT_TLS) refuse(path_, "has thread-local variables, which this loader does not support");
    if (entry.p_type != PT_LOAD) continue;
    if (entry.p_offset + entry.p_filesz > num_bytes_) refuse(path_, "is cut short");
    if (entry.p_align != kPage || entry.p_vaddr % kPage != entry.p_offset % kPage || entry.p_vaddr < span_)
      refuse(path_, "has segments that cannot be mapped page by page");
    if (entry.p_flags & PF_W) {
      if (data_.p_memsz) refuse(path_, "has more than one segment of variables");
      data_ = entry;
    } else if (data_.p_memsz || entry.p_memsz != entry.p_filesz) {
      refuse(path_, "has constants that are not in the file, or come after its variables");
    }
    segments_.push_back(entry);
    span_ = page_up(entry.p_vaddr + entry.p_memsz);
  }
  if (!data_.p_memsz || segments_.empty() || page_up(data_.p_vaddr + data_.p_memsz) != span_)
    refuse(path_, "does not end with its variables");
  for (int i = 0; i < header->e_phnum; ++i) {
    if (entries[i].p_type != PT_DYNAMIC) continue;
    const auto *entry = at<Elf64_Dyn>(entries[i].p_vaddr, entries[i].p_filesz / sizeof(Elf64_Dyn));
    const auto *end = entry + entries[i].p_filesz / sizeof(Elf64_Dyn);
    for (; entry < end && entry->d_tag != DT_NULL; ++entry) {
      if (entry->d_tag == DT_NEEDED)
        needed_.emplace_back(std::to_string(entry->d_un.d_val));
      else
        dynamic_[entry->d_tag] = entry->d_un.d_val;
    }
  }
}

void Library::read_dynamic() {
  for (std::int64_t tag : {DT_STRTAB, DT_SYMTAB, DT_GNU_HASH, DT_RELA, DT_RELASZ, DT_JMPREL, DT_PLTRELSZ, DT_INIT_ARRAY,
                           DT_INIT_ARRAYSZ, DT_VERSYM, DT_VERNEED, DT_VERNEEDNUM, DT_PLTGOT})
    if (!dynamic_.count(tag)) refuse(path_, "lacks a table that this loader needs (tag " + std::to_string(tag) + ")");
  if (dynamic_.count(DT_TEXTREL) || (dynamic_.count(DT_FLAGS) && dynamic_[DT_FLAGS] & DF_TEXTREL))
    refuse(path_, "relocates its code, which this loader does not support");
  for (std::string &name : needed_) name = at<char>(dynamic_[DT_STRTAB] + std::stoul(name));
  // The table for calls is the last thing that is only written while loading.
  variables_start_ = page_down(dynamic_[DT_PLTGOT] + (3 + dynamic_[DT_PLTRELSZ] / sizeof(Elf64_Rela)) * 8);
}

void Library::read_symbols() {
  // The hash table says how many symbols there are: the highest one that a bucket leads to.
  const auto *head = at<std::uint32_t>(dynamic_[DT_GNU_HASH], 4);
  std::uint32_t num_buckets = head[0], first = head[1], bloom_words = head[2];
  std::size_t buckets = dynamic_[DT_GNU_HASH] + 16 + bloom_words * 8, chains = buckets + num_buckets * 4;
  const auto *bucket = at<std::uint32_t>(buckets, num_buckets);
  std::uint32_t last = *std::max_element(bucket, bucket + num_buckets);
  if (last < first) refuse(path_, "exports nothing");
  while (!(*at<std::uint32_t>(chains + (last - first) * 4) & 1)) ++last;
  num_symbols_ = last + 1;
  const auto *symbols = at<Elf64_Sym>(dynamic_[DT_SYMTAB], num_symbols_);
  for (std::size_t i = 1; i < num_symbols_; ++i) {
    if (symbols[i].st_shndx == SHN_UNDEF) continue;
    if (ELF64_ST_TYPE(symbols[i].st_info) == STT_GNU_IFUNC || ELF64_ST_TYPE(symbols[i].st_info) == STT_TLS)
      refuse(path_, "defines a kind of symbol that this loader does not support");
    defined_.emplace(at<char>(dynamic_[DT_STRTAB] + symbols[i].st_name), &symbols[i]);
  }
}

void Library::bind(const Replacements &replaced, const Replacements &watched) {
  Needs needs;
  for (const std::string &name : needed_) {
    void *handle = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);  // Stays open with this process.
    if (!handle) refuse(path_, "needs " + name + ", which cannot be loaded");
    needs.handles.push_back(handle);
  }
  std::size_t need = dynamic_[DT_VERNEED];
  for (std::uint64_t i = 0; i < dynamic_[DT_VERNEEDNUM]; ++i) {
    const auto *entry = at<Elf64_Verneed>(need);
    std::size_t item = need + entry->vn_aux;
    for (int k = 0; k < entry->vn_cnt; ++k) {
      const auto *version = at<Elf64_Vernaux>(item);
      needs.versions[version->vna_other] = at<char>(dynamic_[DT_STRTAB] + version->vna_name);
      item += version->vna_next;
    }
    need += entry->vn_next;
  }
  bind_table(dynamic_[DT_RELA], dynamic_[DT_RELASZ], replaced, watched, needs);
  bind_table(dynamic_[DT_JMPREL], dynamic_[DT_PLTRELSZ], replaced, watched, needs);
  for (const auto &[name, ours] : watched)
    if (!defined_.count(name)) refuse(path_, "has no function " + std::string(name));
}

void Library::bind_table(std::size_t table, std::size_t bytes, const Replacements &replaced,
                         const Replacements &watched, const Needs &needs) {
  const auto *entries = at<Elf64_Rela>(table, bytes / sizeof(Elf64_Rela));
  for (std::size_t i = 0; i < bytes / sizeof(Elf64_Rela); ++i) {
    const Elf64_Rela &entry = entries[i];
    auto kind = ELF64_R_TYPE(entry.r_info);
    std::size_t index = ELF64_R_SYM(entry.r_info);
    if (entry.r_offset < data_.p_vaddr || entry.r_offset + 8 > data_.p_vaddr + data_.p_memsz)
      refuse(path_, "relocates something that is not a variable");
    auto addend = static_cast<std::uint64_t>(entry.r_addend);
    if (kind == R_X86_64_RELATIVE) {
      bound_.push_back({entry.r_offset, addend, false});
      continue;
    }
    bool plain = kind == R_X86_64_GLOB_DAT || kind == R_X86_64_JUMP_SLOT;
    if (plain) addend = 0;
    if ((!plain && kind != R_X86_64_64) || index >= num_symbols_)
      refuse(path_, "has a relocation of kind " + std::to_string(kind) + ", which this loader does not support");
    const Elf64_Sym &symbol = *at<Elf64_Sym>(dynamic_[DT_SYMTAB] + index * sizeof(Elf64_Sym));
    const char *name = at<char>(dynamic_[DT_STRTAB] + symbol.st_name);
    if (symbol.st_shndx != SHN_UNDEF) {
      Bound own{entry.r_offset, symbol.st_value + addend, false};
      auto ours = watched.find(name);
      if (ours != watched.end()) {
        unwatched_.push_back(own);
        own = {entry.r_offset, reinterpret_cast<std::uint64_t>(ours->second), true};
      }
      bound_.push_back(own);
      continue;
    }
    auto ours = replaced.find(name);
    unsigned version = *at<std::uint16_t>(dynamic_[DT_VERSYM] + index * 2) & 0x7fff;
    void *address = ours != replaced.end() ? ours->second : needs.find(name, version);
    if (!address && ELF64_ST_BIND(symbol.st_info) != STB_WEAK)
      refuse(path_, std::string("needs the function ") + name + ", which this system does not have");
    bound_.push_back({entry.r_offset, address ? reinterpret_cast<std::uint64_t>(address) + addend : 0, true});
  }
}

std::size_t Library::offset_of(const std::string &name, std::size_t size) const {
  auto found = defined_.find(name);
  if (found == defined_.end()) refuse(path_, "has no symbol " + name);
  if (size && found->second->st_size != size) {
    refuse(path_, "has a " + name + " of " + std::to_string(found->second->st_size) + " bytes, where " +
                      std::to_string(size) + " are known");
  }
  return found->second->st_value;
}

// Copies code and constants to a file in memory that the system can keep in large pages (2 MB): many games then
// need few entries in the processor's tables of code addresses.
void Library::gather_constants() {
  constants_end_ = page_down(data_.p_vaddr);
  std::size_t bytes = (constants_end_ + kAlignment - 1) / kAlignment * kAlignment;
  lead_ = bytes - constants_end_;
  constants_ = memfd_create("libnethack", MFD_CLOEXEC);
  void *reserved = mmap(nullptr, bytes + kAlignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (constants_ < 0 || ftruncate(constants_, static_cast<off_t>(bytes)) || reserved == MAP_FAILED)
    refuse(path_, "cannot be copied into memory");
  auto aligned = (reinterpret_cast<std::uintptr_t>(reserved) + kAlignment - 1) / kAlignment * kAlignment;
  auto *start = reinterpret_cast<char *>(aligned);
  bool mapped = mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, constants_, 0) == start;
  if (mapped) {
    for (const Elf64_Phdr &segment : segments_)
      if (!(segment.p_flags & PF_W))
        std::memcpy(start + lead_ + segment.p_vaddr, bytes_ + segment.p_offset, segment.p_filesz);
    madvise(start, bytes, MADV_COLLAPSE);  // Where the system cannot, small pages do as well.
    mapped = mprotect(start, bytes, PROT_READ | PROT_EXEC) == 0;
  }
  munmap(reserved, bytes + kAlignment);
  if (!mapped) refuse(path_, "cannot be run from memory");
}

void Library::map(char *base) const {
  void *constants = mmap(base - lead_, lead_ + constants_end_, PROT_READ | PROT_EXEC,
                         MAP_SHARED | MAP_FIXED | MAP_POPULATE, constants_, 0);
  void *variables = mmap(base + constants_end_, span_ - constants_end_, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
  if (constants == MAP_FAILED || variables == MAP_FAILED) throw std::runtime_error("no memory for another game");
}

void Library::load(char *base) const {
  std::size_t tables = page_down(data_.p_vaddr);
  if (mprotect(base + tables, variables_start_ - tables, PROT_READ | PROT_WRITE))
    throw std::runtime_error("no memory for another game");
  std::memcpy(base + data_.p_vaddr, bytes_ + data_.p_offset, data_.p_filesz);
  std::memset(base + data_.p_vaddr + data_.p_filesz, 0, data_.p_memsz - data_.p_filesz);
  for (const Bound &bound : bound_) {
    std::uint64_t value = bound.value + (bound.absolute ? 0 : reinterpret_cast<std::uint64_t>(base));
    std::memcpy(base + bound.offset, &value, sizeof value);
  }
  using Initialiser = void (*)(int, char **, char **);
  auto init = dynamic_.find(DT_INIT);
  if (init != dynamic_.end()) reinterpret_cast<Initialiser>(base + init->second)(0, nullptr, nullptr);
  auto *initialisers = reinterpret_cast<Initialiser *>(base + dynamic_.at(DT_INIT_ARRAY));
  for (std::size_t i = 0; i < dynamic_.at(DT_INIT_ARRAYSZ) / sizeof(Initialiser); ++i)
    initialisers[i](0, nullptr, nullptr);
}

void Library::stop_watching(char *base) const {
  for (const Bound &bound : unwatched_) {
    std::uint64_t value = bound.value + reinterpret_cast<std::uint64_t>(base);
    std::memcpy(base + bound.offset, &value, sizeof value);
  }
  std::size_t tables = page_down(data_.p_vaddr);
  mprotect(base + tables, variables_start_ - tables, PROT_READ);
}

}  // namespace engine
