// Hooks of the access checker, a build in which every load and store of a kernel is reported (checker.cpp).
// In the plain build all of them are nullptr and no operation is remembered.
#pragma once
#include "primitives.h"

namespace minialex::emulated {

enum class Access {
  read, write, atomic,      // by the thread `current`
  copy_read, copy_write,    // by the stream operation current_operation(): a copy or a fill, no thread
  copy_issued,              // by the thread: a cp.async will write these bytes at some time before its wait
  fresh,                    // the bytes hold nothing yet: allocated, or a shared array of a new block
  gone,                     // released
};

// Set by the checker before the first launch (a static initialiser will do); the emulator then runs all blocks on one OS thread.
extern void (*note_access)(const void* pointer, size_t bytes, Access kind);
extern void (*on_block_start)(const char* shared_memory, size_t bytes);     // the arena, the same for each block; arrays in it come later
extern std::string (*on_block_end)();                                       // "" or what the block did wrong
extern void (*on_device_added)(int device, const char* memory, size_t bytes);   // all addresses that its allocations may ever have

inline void note(const void* pointer, size_t bytes, Access kind) {
  if (note_access) note_access(pointer, bytes, kind);
}

// An operation is a kernel, a copy or a fill on a stream.  Ids count up from 1; 0 is none.  current->block->operation is the
// kernel's own.  Order comes from streams, events and the host's synchronising, kept as vector clocks.
uint32_t current_operation();
bool happens_before(uint32_t first, uint32_t second);                       // also true where they are the same
std::string operation_name(uint32_t operation);                             // kernel relu_fprop (stream 2, operation 5)

// "" where a kernel of `device` may touch the bytes, else why not, in words.  device -1: any device may own them.
std::string range_problem(const void* pointer, size_t bytes, int device);

// Order inside one kernel, of what thread a did at epochs (block, warp) and thread b does now:
//   the same thread; or the same block and an earlier current->block->epoch; or the same warp and an earlier current->warp_epoch.

}  // namespace minialex::emulated
