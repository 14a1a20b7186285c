// Settings from Python by ctypes: the checker's build has the doorbells of every other build, and no more.
#include "../settings.h"
#include "minialex/check.h"

extern "C" __attribute__((visibility("default"))) int minialex_configure(const char* name, const char* value) {
  try {
    minialex::emulated::configure(name, value);
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
