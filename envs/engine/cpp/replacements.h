// The functions that the library gets in place of libc's, libstdc++'s and some of its own.
#pragma once

#include "library.h"

namespace engine {

// Memory, files and what else must stay inside one game.
const Replacements &replaced_functions();
// The library's own functions that read the seeds, or what was made from them.
const Replacements &watched_functions();

}  // namespace engine
