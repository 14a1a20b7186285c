// The access checker: what it remembers of each 4 bytes of device and shared memory, and how it names places in the source.
//
// Kernels are compiled with -fsanitize=thread but not linked with its library: the calls the compiler puts before each load
// and store land in tsan.cpp.  The checker's sources belong to that build only (tests/checked.py, tests/zoo).
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "../checker.h"

namespace minialex::emulated::checker {

constexpr unsigned kGranule = 4;
constexpr uint16_t kNoThread = 0xFFFF;             // a copy or a fill

using Site = uint32_t;                             // a place in the code, see below

struct Record {                                    // one access
  uint32_t operation, block;
  Site site;
  uint16_t epoch, warp_epoch;                      // the low 16 bits: compared as differences
  uint16_t thread;
  uint8_t bytes;                                   // which of the 4; 0: an empty record
  bool atomic;
};

// Two of each, from different warps where there is a choice: whoever comes later is then in conflict with one of them if he is
// with any that was left out.
struct Cell {
  Record writes[2], reads[2];
  uint8_t allocated, written;                      // a bit a byte
  uint8_t in_flight;                               // a cp.async to it has been issued and not been waited for
};

struct Region {                                    // an arena of shared memory, or all addresses of a device
  const char *first = nullptr, *end = nullptr;
  Cell* cells = nullptr;
  int device = -1;                                 // -1: shared memory
  bool holds(const void* pointer) const { return pointer >= first && pointer < end; }
  bool shared() const { return device < 0; }
  Cell& at(const char* pointer) const { return cells[static_cast<size_t>(pointer - first) / kGranule]; }
};

// An access by the current thread, before it happens.
void check(const char* pointer, size_t bytes, Access kind, Site site);
// One of a type that wants `bytes` of alignment.
void check_typed(const char* pointer, size_t bytes, Access kind, Site site);

// sites.cpp.  A place is a return address in this module, or a chain of them where the emulator itself made the access.
extern const char* const code_start;
inline Site site_of(const void* return_address) { return static_cast<Site>(static_cast<const char*>(return_address) - code_start); }
Site site_of_callers();                            // of the function that calls this one; needs frame pointers
std::string line_of(Site site);                    // conv.cu:12; runs addr2line, so only for messages

// statistics.cpp: with MINIALEX_EMULATED_STATISTICS=1, bank passes and sectors of the accesses of each source line.
extern const bool statistics_wanted;
void count_access(const Region& region, const char* pointer, size_t bytes, Site site);

}  // namespace minialex::emulated::checker
