// What NLE 1.3 and its libnethack.so agree on: the layouts of the structures that cross its C interface.
#pragma once

#include <cstddef>
#include <cstdint>

namespace engine {

// Where observations go; the library fills what is not null.
struct Observation {
  int action;
  int done;
  char in_normal_game;
  int how_done;
  short *glyphs;
  unsigned char *chars;
  unsigned char *colors;
  unsigned char *specials;
  long *blstats;
  unsigned char *message;
  int *program_state;
  int *internal;
  short *inv_glyphs;
  unsigned char *inv_strs;
  unsigned char *inv_letters;
  unsigned char *inv_oclasses;
  unsigned char *screen_descriptions;
  unsigned char *tty_chars;
  signed char *tty_colors;
  unsigned char *tty_cursor;
  int *misc;
};

struct InitialSeeds {
  unsigned long core_and_disp[2];
  char reseed;
  bool use_init_seeds;
  unsigned long lgen_seed;
  bool use_lgen_seed;
};

struct Settings {
  char hackdir[4096];
  char scoreprefix[4096];
  char options[32768];
  char wizkit[4096];
  int spawn_monsters;
  char ttyrecname[4096];
  InitialSeeds initial_seeds;
  bool fix_moon_phase;
  unsigned long time_seed;
  bool time_seed_is_set;
};

// The beginning of the library's own context, as far as it is used here.
struct Context {
  void *stack_top;
  std::size_t stack_size;
  void *return_context;
  void *generator_context;
};

// What a switch between the two stacks hands over (returned in two registers).
struct Transfer {
  void *context;
  void *data;
};

inline constexpr int kRows = 21, kColumns = 79;
inline constexpr int kInventory = 55, kText = 80;

}  // namespace engine
