// The rendezvous of the lanes of a warp, and the asynchronous copies, which belong to a thread.
#include <algorithm>
#include "block.h"

namespace minialex::emulated {
namespace {
void execute_sync(void**, uint32_t) {}

struct Hex { uint32_t value; };
std::ostream& operator<<(std::ostream& out, Hex hex) { return out << "0x" << std::hex << hex.value << std::dec; }
}  // namespace

void collective(void* arguments, uint32_t mask, Execute execute, const char* what, bool aligned, Location location) {
  running_block().collective(arguments, mask, execute, what, aligned, location);
}
void sync_warp(uint32_t mask, Location location) {
  char nothing;
  running_block().collective(&nothing, mask, execute_sync, "__syncwarp", false, location);
}

void BlockRunner::collective(void* arguments, uint32_t mask, Execute execute, const char* what, bool aligned, Location location) {
  Thread& thread = *current;
  Warp& warp = warps_[thread.warp];
  int lane = thread.lane;
  bool strict = settings().strict;
  if (!(mask >> lane & 1)) emulated::fail(what, " at ", location, ": lane ", lane, " is not in its own mask ", Hex{mask});
  if (aligned && (warp.alive != ~0u || mask != ~0u))
    emulated::fail(what, " at ", location, " needs all 32 lanes; alive are ", Hex{warp.alive});
  unsigned in_block = count_ - thread.warp * 32u;
  uint32_t existing = in_block >= 32 ? ~0u : (1u << in_block) - 1;       // a full mask is fine in the last, partial warp
  if (strict && (mask & existing & ~warp.alive))
    emulated::fail(what, " at ", location, ": mask ", Hex{mask}, " names lanes that have returned (alive are ", Hex{warp.alive}, ")");
  int slot = -1, unused = -1;
  for (int i = 0, seen = 0; i < Warp::kSlots && (seen < warp.in_flight || unused < 0); ++i) {
    if (!warp.used[i]) {
      if (unused < 0) unused = i;
      continue;
    }
    ++seen;
    WarpOperation& other = warp.slots[i];
    if (other.mask == mask && other.execute == execute && !(other.arrived >> lane & 1)) {
      slot = i;
      break;
    }
  }
  if (slot < 0) {
    if (unused < 0) emulated::fail(what, " at ", location, ": more than ", int(Warp::kSlots), " operations of one warp have begun");
    slot = unused;
    warp.used[slot] = true;
    ++warp.in_flight;
    WarpOperation& begun = warp.slots[slot];
    begun.mask = mask;
    begun.arrived = 0;
    begun.execute = execute;
    begun.what = what;
    begun.location = location;
  }
  WarpOperation& operation = warp.slots[slot];
  if (strict && !(operation.location == location))
    emulated::fail("divergent warp: lane ", lane, " is in ", what, " at ", location, ", other lanes of mask ", Hex{mask},
                   " wait in the one at ", operation.location);
  operation.arguments[lane] = arguments;
  operation.arrived |= 1u << lane;
  if (operation.arrived == (mask & warp.alive)) complete(warp, slot, lane);
  else wait(State::in_collective, what, location);
}

// Runs the operation and lets its lanes go on before all others; lane `except` is running already.
void BlockRunner::complete(Warp& warp, int slot, int except) {
  WarpOperation& operation = warp.slots[slot];
  operation.execute(operation.arguments, operation.arrived);
  unsigned first = static_cast<unsigned>(&warp - warps_) * 32;
  Order order = settings().order;
  unsigned rotation = order == Order::random ? random_.below(32) : 0;
  uint32_t epoch = 0;                              // one for all of them, also where some have met before without the others
  for (unsigned lane = 0; lane < 32 && operation.execute == execute_sync; ++lane)
    if (operation.arrived >> lane & 1) epoch = std::max(epoch, threads_[first + lane].warp_epoch + 1);
  for (unsigned i = 0; i < 32; ++i) {
    unsigned lane = order == Order::forward ? 31 - i : order == Order::reverse ? i : (i * 5 + rotation) % 32;
    if (!(operation.arrived >> lane & 1)) continue;
    if (operation.execute == execute_sync) threads_[first + lane].warp_epoch = epoch;
    if (static_cast<int>(lane) == except) continue;
    if (order == Order::random && (random_.next() >> 40 & 1)) push_back(first + lane);
    else push_front(first + lane);
  }
  warp.used[slot] = false;
  --warp.in_flight;
}

void check_aligned(const void* pointer, size_t alignment, const char* what, const char* caller_file, int caller_line) {
  if (reinterpret_cast<uintptr_t>(pointer) % alignment)
    fail(what, " at ", MINIALEX_CALLED_AT, ": address ", pointer, " is no multiple of ", alignment);
}

void check_shared_pointer(const void* pointer, size_t bytes, size_t alignment, const char* what, Location location) {
  check_aligned(pointer, alignment, what, location.file, location.line);
  if (!running_block().shared.owns(pointer)) fail(what, " at ", location, ": address ", pointer, " is not in shared memory");
  if (!inside_shared_array(pointer, bytes)) fail(what, " at ", location, ": ", bytes, " bytes at ", pointer, " lie in no shared array");
}

void check_global_pointer(const void* pointer, size_t bytes, size_t alignment, const char* what, Location location) {
  check_aligned(pointer, alignment, what, location.file, location.line);
  std::string problem = range_problem(pointer, bytes, current->block->device);
  if (!problem.empty()) fail(what, " at ", location, ": ", problem);
}

void cp_async(void* to, const void* from, unsigned bytes, unsigned valid_bytes, Location location) {
  check_shared_pointer(to, bytes, bytes, "cp.async", location);
  if (valid_bytes) check_global_pointer(from, valid_bytes, bytes, "cp.async", location);
  note(to, bytes, Access::copy_issued);
  std::memset(to, 0xFF, bytes);
  current->copies.push_back({to, from, bytes, valid_bytes, current->copy_group});
}

void cp_async_commit() { ++current->copy_group; }

void cp_async_wait(unsigned groups_left) {
  auto& copies = current->copies;
  size_t landed = 0;
  for (; landed < copies.size() && copies[landed].group + groups_left < current->copy_group; ++landed) {
    const AsyncCopy& copy = copies[landed];
    if (copy.valid_bytes) note(copy.from, copy.valid_bytes, Access::read);
    note(copy.to, copy.bytes, Access::write);
    std::memcpy(copy.to, copy.from, copy.valid_bytes);
    std::memset(static_cast<char*>(copy.to) + copy.valid_bytes, 0, copy.bytes - copy.valid_bytes);
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(landed));
}

}  // namespace minialex::emulated
