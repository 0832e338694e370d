"""How one game of NetHack is run in this process: natively, or through NLE's own module.

NLE gives each game a copy of its library of its own, because NetHack keeps its state in global variables, and
loads that copy again for every episode. Played side by side, such games push each other's code out of the
caches, and short episodes are mostly loading. The native engine (C++ in ``cpp/``) does otherwise:

* **One copy of the code.** It loads NLE's installed ``libnethack.so`` itself: code and constants once for each
  process, in large memory pages where the system gives them, shown to each game at addresses of its own.
  Variables are each game's own (about 0.4 MB), relocated to those addresses. What the system reports as resident
  counts the shared 4 MB once for each game; a game really takes 0.9 MB, its snapshot included.
* **Own memory.** While it relocates, it puts its own functions in place of some that NetHack imports: each
  game's heap and stack lie in one range of addresses, and ``nhdat`` is read from memory.
* **A snapshot.** The first start runs to the point at which NetHack is about to use its seeds, or what was made
  from them, for the first time. Variables, heap and stack are copied there, in the middle of NetHack's start. A
  reset puts these bytes back at the same addresses, sets the seeds as NLE does, and goes on. An episode
  begins from the same bytes each time, whatever was played before. A level that was compiled again (another
  ``nhdat``) is a start from the file, with a new snapshot.

The games are NLE's, to the bit (``tests/envs/test_engine.py``): it is the same machine code on the same data.
What differs: a reset does not run NetHack's clean-up of a game that was broken off (it only frees memory);
files that such a game left open are closed; NetHack's real-time clock does not enter observations and is not
kept exact; C++ exceptions in the library end the process, where NLE's might be caught. ttyrecs, tiles and
reseeding in mid-game are not offered.

Limits: Linux on x86-64, and the versions of NLE whose C interface is known here (``native.KNOWN_NLE``). Without
a compiler at install time, or with another NLE, ``auto`` plays through NLE's module, at its speed.
"""
