#include "game.h"

#include <regex.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

#include "data_file.h"

namespace engine {
namespace {

constexpr std::size_t kHeapBytes = std::size_t{1} << 24;  // Address space; long games were seen to use 0.3 MB of it.
constexpr std::size_t kPage = 4096;

// The game whose library this thread is in. Code must not keep its address over a change of stacks.
__attribute__((tls_model("initial-exec"))) thread_local Game *running = nullptr;

class Running {
 public:
  explicit Running(Game *game) : before_(running) { running = game; }
  ~Running() { running = before_; }
  Running(const Running &) = delete;
  Running &operator=(const Running &) = delete;

 private:
  Game *before_;
};

template <std::size_t size>
void copy_text(char (&target)[size], const std::string &text, const char *name) {
  if (text.size() >= size) throw std::length_error(std::string(name) + " is too long for NetHack");
  std::memcpy(target, text.c_str(), text.size() + 1);
}

char *page_up(char *address) {
  return reinterpret_cast<char *>((reinterpret_cast<std::uintptr_t>(address) + kPage - 1) / kPage * kPage);
}

}  // namespace

Game *Game::current() { return running; }

Game::Places::Places(const Library &library)
    : settings(library.offset_of("settings", sizeof(Settings))),
      birthday(library.offset_of("ubirthday", sizeof(long))),
      context(library.offset_of("current_nle_ctx", sizeof(void *))),
      start(library.offset_of("nle_start")),
      step(library.offset_of("nle_step")),
      init_random(library.offset_of("init_random")),
      core_random(library.offset_of("rn2")),
      display_random(library.offset_of("rn2_on_display_rng")),
      init_levels(library.offset_of("nle_init_lgen_rng")),
      jump(library.offset_of("jump_fcontext")) {}

void Game::check(const Library &library) { Places{library}; }

Game::Game(std::shared_ptr<const Library> library, const std::string &folder, const std::string &options,
           bool spawn_monsters, bool fix_moon_phase)
    : library_(std::move(library)),
      at_(*library_),
      folder_(folder),
      data_path_(folder + "/nhdat"),
      settings_(new Settings{}) {
  copy_text(settings_->hackdir, folder, "the folder");
  copy_text(settings_->options, options, "the list of options");
  settings_->spawn_monsters = spawn_monsters;
  settings_->fix_moon_phase = fix_moon_phase;

  // [lead][image][stack][heap]
  std::size_t lead = library_->lead(), alignment = Library::kAlignment;
  reserved_ = lead + library_->span() + kStackBytes + kHeapBytes + alignment;
  void *reserved = mmap(nullptr, reserved_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throw std::runtime_error("no address space for another game");
  reserved_at_ = static_cast<char *>(reserved);
  base_ = reinterpret_cast<char *>((reinterpret_cast<std::uintptr_t>(reserved) + alignment - 1) / alignment * alignment +
                                   lead);
  stack_ = base_ + library_->span();
  char *heap = stack_ + kStackBytes;
  if (mprotect(stack_, kStackBytes + kHeapBytes, PROT_READ | PROT_WRITE)) {
    munmap(reserved_at_, reserved_);
    throw std::runtime_error("no memory for another game");
  }
  heap_ = reinterpret_cast<Arena *>(heap);
  try {
    library_->map(base_);
  } catch (...) {
    munmap(reserved_at_, reserved_);
    throw;
  }
}

Game::~Game() { close(); }

void Game::close() {
  if (!base_) return;
  close_files();
  munmap(reserved_at_, reserved_);
  base_ = nullptr;
  context_ = nullptr;
  snapshot_.forget();
  data_.reset();
}

// What an abandoned episode left open.
void Game::close_files() {
  for (std::FILE *stream : open_streams) std::fclose(stream);
  for (int file : open_files) ::close(file);
  for (void *pattern : compiled_patterns) regfree(static_cast<regex_t *>(pattern));
  open_streams.clear();
  open_files.clear();
  compiled_patterns.clear();
}

void Game::set_seeds(unsigned long core, unsigned long disp, unsigned long lgen) {
  InitialSeeds &seeds = settings_->initial_seeds;
  seeds.core_and_disp[0] = core;
  seeds.core_and_disp[1] = disp;
  seeds.reseed = false;
  seeds.use_init_seeds = true;
  seeds.lgen_seed = lgen;
  seeds.use_lgen_seed = true;
  if (settings_->fix_moon_phase) {
    settings_->time_seed = core + 1;
    settings_->time_seed_is_set = true;
  }
}

void Game::reset() {
  if (!settings_->initial_seeds.use_init_seeds) throw std::runtime_error("reset called before set_initial_seeds");
  close_files();
  Running guard(this);
  if (!snapshot_.is_taken() || !data_ || !data_->is_still_at(data_path_)) {
    boot();
    return;
  }
  char *left = page_up(heap_->used_end());
  snapshot_.put_back();
  make_zero(page_up(heap_->used_end()), left);
  seed();
  run();
}

// Starts the library from its file, and goes on to the first question. On the way, where NetHack is about to use
// its seeds for the first time, `note_need_of_seeds` brings us back here and the snapshot is taken.
void Game::boot() {
  snapshot_.forget();
  data_ = DataFile::read(data_path_);
  char *used_end = context_ ? heap_->used_end() : reinterpret_cast<char *>(heap_);
  make_zero(reinterpret_cast<char *>(heap_), page_up(used_end));
  std::memset(stack_ + kPage, 0, kStackBytes - kPage);
  heap_ = Arena::create(heap_, kHeapBytes);
  context_ = nullptr;
  library_->load(base_);

  watches_ = true;
  stopped_ = false;
  context_ = function<Context *(Observation *, std::FILE *, Settings *)>(at_.start)(&observation_, nullptr,
                                                                                 settings_.get());
  watches_ = false;
  library_->stop_watching(base_);
  if (!stopped_) return;  // NetHack asked something before it needed its seeds; this is that question.
  take_snapshot();
  run();
}

void Game::take_snapshot() {
  char *stack_end = stack_ + kStackBytes;
  bool known = static_cast<char *>(context_->stack_top) == stack_end && context_->stack_size == kStackBytes &&
               context_->generator_context > stack_ && context_->generator_context < stack_end;
  if (!known || !data_ || !open_streams.empty() || !open_files.empty() || !compiled_patterns.empty()) return;
  snapshot_.take({{base_ + library_->variables_start(), base_ + library_->variables_end()},
                  {stack_ + kPage, stack_end},
                  {reinterpret_cast<char *>(heap_), page_up(heap_->used_end())}});
}

// Called on the game's stack by whatever is about to read the seeds or what was made from them.
void Game::note_need_of_seeds(const void *frame) {
  if (!watches_ || frame < stack_ || frame >= stack_ + kStackBytes) return;
  watches_ = false;
  stopped_ = true;
  // `nle_start` has not returned yet, so `context_` is not set.
  auto *context = *reinterpret_cast<Context **>(base_ + at_.context);
  auto *jump = function<Transfer(void *, void *)>(at_.jump);
  Transfer back = jump(context->return_context, this);
  context->return_context = back.context;
}

void Game::seed() {
  auto *held = reinterpret_cast<Settings *>(base_ + at_.settings);
  held->initial_seeds = settings_->initial_seeds;
  held->time_seed = settings_->time_seed;
  held->time_seed_is_set = settings_->time_seed_is_set;
  function<void()>(at_.init_levels)();
  auto *init_random = function<void(void *)>(at_.init_random);
  init_random(base_ + at_.core_random);
  init_random(base_ + at_.display_random);
}

void Game::run() { function<Context *(Context *, Observation *)>(at_.step)(context_, &observation_); }

void Game::step(int key) {
  Running guard(this);
  observation_.action = key;
  run();
}

std::size_t Game::heap_bytes() const {
  return context_ ? static_cast<std::size_t>(heap_->used_end() - reinterpret_cast<char *>(heap_)) : 0;
}

}  // namespace engine
