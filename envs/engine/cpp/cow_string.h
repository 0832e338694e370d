// The reference-counted std::string that the library was built with, on the heap of the game that is running.
#pragma once

#include "library.h"

namespace engine {

// libstdc++'s functions for that string, by their linker names.
Replacements string_functions();

}  // namespace engine
