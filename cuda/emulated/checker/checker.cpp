#include "shadow.h"
#include <sys/mman.h>
#include <algorithm>
#include <cstring>

namespace minialex::emulated::checker {
namespace {

std::vector<Region> device_regions;
Region shared_region;
size_t shared_used = 0;                            // bytes of the arena that the last block had arrays in
// The first read of shared memory that nobody had written.  It waits for the end of the block: where a later write is not ordered
// behind it, a barrier is missing, and that report names both lines.
struct { const char* pointer = nullptr; Site site; unsigned thread; } early_read;

Cell* make_cells(size_t bytes) {
  void* cells = mmap(nullptr, bytes / kGranule * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MINIALEX_CHECK(DeviceError, cells != MAP_FAILED, "the access checker found no address space for the history of ", bytes >> 20,
                 " MiB: lower MINIALEX_EMULATED_MEMORY or MINIALEX_EMULATED_DEVICES");
  return static_cast<Cell*>(cells);
}

const Region* region_of(const void* pointer) {
  static const Region* latest = &shared_region;
  if (latest->holds(pointer)) return latest;
  if (shared_region.holds(pointer)) return latest = &shared_region;
  for (const Region& region : device_regions)
    if (region.holds(pointer)) return latest = &region;
  return nullptr;
}

bool earlier(uint16_t a, uint16_t b) { return static_cast<int16_t>(a - b) < 0; }
bool same_warp(const Record& a, const Record& b) {
  return a.operation == b.operation && a.block == b.block && a.thread / 32 == b.thread / 32;
}
bool same_thread(const Record& a, const Record& b) { return same_warp(a, b) && a.thread == b.thread; }

bool operations_ordered(uint32_t first, uint32_t second) {
  static uint32_t known_first = 0, known_second = 0;         // thousands of accesses in a row ask the same
  if (first == known_first && second == known_second) return true;
  if (!happens_before(first, second)) return false;
  known_first = first;
  known_second = second;
  return true;
}

// Is `old` certain to happen before `now`?  The history of shared memory is that of one block.
bool ordered(const Record& old, const Record& now) {
  if (old.operation != now.operation) return operations_ordered(old.operation, now.operation);
  if (same_thread(old, now)) return true;
  if (old.block != now.block) return false;
  return earlier(old.epoch, now.epoch) || (same_warp(old, now) && earlier(old.warp_epoch, now.warp_epoch));
}

// Would whoever conflicts with `now` conflict with one of these two as well?  A common case: an element that all threads read.
bool stand_for(const Record& first, const Record& second, const Record& now) {
  if (first.operation != now.operation || second.operation != now.operation || (now.bytes & ~(first.bytes & second.bytes))) return false;
  if (first.block != second.block) return true;
  return first.epoch == now.epoch && second.epoch == now.epoch && first.thread / 32 != second.thread / 32 && first.block == now.block;
}

void remember(Record (&slots)[2], const Record& now) {
  if (!now.atomic && stand_for(slots[0], slots[1], now)) return;
  for (Record& old : slots) {
    bool same_moment = same_thread(old, now) && old.epoch == now.epoch && old.warp_epoch == now.warp_epoch && old.atomic == now.atomic;
    bool nothing_lost = !(old.bytes & ~now.bytes) && ordered(old, now);
    if (old.bytes && !same_moment && !nothing_lost) continue;
    uint8_t kept = same_moment ? old.bytes : 0;
    old = now;
    old.bytes |= kept;
    return;
  }
  auto& [first, second] = slots;
  if (ordered(first, now)) first = now;
  else if (ordered(second, now) || same_warp(first, second) || (first.operation == second.operation && first.operation != now.operation))
    second = now;
}

const char* word_of(Access kind) {
  return kind == Access::read || kind == Access::copy_read ? "read" : kind == Access::atomic ? "atomic update" : "write";
}

template <class Size> std::string triple(uint64_t linear, const Size& size) {
  return text('(', linear % size.x, ',', linear / size.x % size.y, ',', linear / size.x / size.y, ')');
}

[[noreturn]] void race(const Region& region, const Record& old, bool old_is_write, const Record& now, Access kind) {
  std::string before = old.atomic ? "atomic update" : old_is_write ? "write" : "read";
  if (old.thread != kNoThread) before += text(" at ", line_of(old.site));
  std::string here = word_of(kind);
  if (now.thread != kNoThread) here += text(" at ", line_of(now.site));
  if (old.operation != now.operation)
    fail("race between streams: ", here, " by ", operation_name(now.operation), " and ", before, " by ", operation_name(old.operation),
         " are in no order; record an event behind the earlier one and let the other's stream wait for it");
  std::string who = text("thread ", triple(old.thread, current->block->block_size));
  if (old.block != now.block) {
    who += text(" of block ", triple(old.block, current->block->grid_size));
    fail("race between blocks on global memory: ", here, " and ", before, " by ", who,
         "; blocks run in any order, so each element needs one owner, or atomics");
  }
  fail("race on ", region.shared() ? "shared" : "global", " memory: ", here, " and ", before, " by ", who, " of the same block",
       " with no barrier between them; put __syncthreads between, or __syncwarp within a warp", region.shared() ? "" : ", or use atomics");
}

void check_conflicts(const Region& region, const Cell& cell, const Record& now, Access kind) {
  bool writes = kind != Access::read && kind != Access::copy_read;
  for (const Record& old : cell.writes)
    if ((old.bytes & now.bytes) && !(old.atomic && now.atomic) && !ordered(old, now)) race(region, old, true, now, kind);
  if (!writes) return;
  for (const Record& old : cell.reads)
    if ((old.bytes & now.bytes) && !ordered(old, now)) race(region, old, false, now, kind);
}

// Calls what(cell, the bits of its bytes) for each granule of a range.
template <class What> inline void for_cells(const Region& region, const char* pointer, size_t bytes, What what) {
  for (const char *at = pointer, *end = pointer + bytes; at < end;) {
    size_t offset = static_cast<size_t>(at - region.first) % kGranule, take = std::min<size_t>(kGranule - offset, static_cast<size_t>(end - at));
    what(region.at(at), static_cast<uint8_t>(((1u << take) - 1) << offset));
    at += take;
  }
}

void must_be_legal(const Region& region, const char* pointer, size_t bytes, Access kind, Site site) {
  std::string problem;
  if (!region.shared()) problem = range_problem(pointer, bytes, current->block->device);
  else if (!inside_shared_array(pointer, bytes)) problem = text(bytes, " bytes at ", static_cast<const void*>(pointer), " lie in no shared array");
  if (!problem.empty()) fail(region.shared() ? "shared " : "global ", word_of(kind), " at ", line_of(site), ": ", problem);
}

void allocated(const Region& region, const char* pointer, size_t bytes, bool alive) {
  if (region.shared()) shared_used = std::max(shared_used, static_cast<size_t>(pointer + bytes - region.first));
  for_cells(region, pointer, bytes, [&](Cell& cell, uint8_t bits) {
    if (bits == 15) std::memset(static_cast<void*>(&cell), 0, sizeof cell);
    cell.allocated = static_cast<uint8_t>(alive ? cell.allocated | bits : cell.allocated & ~bits);
    cell.written &= static_cast<uint8_t>(~bits);
  });
}

void unwritten(const Region& region, const Cell& cell, const char* pointer, Access kind, const Record& now) {
  if (cell.in_flight & now.bytes)
    fail(word_of(kind), " at ", line_of(now.site), ": the asynchronous copy at ", line_of(cell.writes[0].site),
         " into these bytes of shared memory was not waited for; cp_async_wait must come first");
  if (!region.shared())
    fail("global ", word_of(kind), " at ", line_of(now.site), ": nobody has written these bytes (", static_cast<const void*>(pointer),
         "); fill or copy them first");
  if (!early_read.pointer) early_read = {pointer, now.site, now.thread};
}

std::string block_ends() {
  if (!early_read.pointer) return "";
  return text("shared read at ", line_of(early_read.site), " by thread ", early_read.thread, ": nobody had written these bytes (",
              static_cast<const void*>(early_read.pointer), "); write every element that is read");
}

void access(const Region& region, const char* pointer, size_t bytes, Access kind, Record now) {
  if (now.thread != kNoThread && !region.shared() && region.device != current->block->device)
    must_be_legal(region, pointer, bytes, kind, now.site);
  bool by_thread = now.thread != kNoThread, reads = kind == Access::read || kind == Access::copy_read;
  now.atomic = kind == Access::atomic;
  for_cells(region, pointer, bytes, [&](Cell& cell, uint8_t bits) {
    now.bytes = bits;
    if (by_thread && (cell.allocated & bits) != bits) must_be_legal(region, pointer, bytes, kind, now.site);
    if (by_thread && kind != Access::write && kind != Access::copy_issued && (cell.written & bits) != bits) unwritten(region, cell, pointer, kind, now);
    check_conflicts(region, cell, now, kind);
    if (kind == Access::copy_issued) {
      cell.in_flight |= bits;
      cell.written &= static_cast<uint8_t>(~bits);
    } else if (!reads) {
      cell.in_flight &= static_cast<uint8_t>(~bits);
      cell.written |= bits;
    }
    remember(reads ? cell.reads : cell.writes, now);
  });
}

void on_note(const void* pointer, size_t bytes, Access kind) {
  auto* address = static_cast<const char*>(pointer);
  if (kind == Access::read || kind == Access::write || kind == Access::atomic || kind == Access::copy_issued) {
    if (current) check(address, bytes, kind, site_of_callers());
    return;
  }
  const Region* region = region_of(pointer);
  if (!region) return;                             // host memory
  if (kind == Access::copy_read || kind == Access::copy_write)
    access(*region, address, bytes, kind, {current_operation(), 0, 0, 0, 0, kNoThread, 0, false});
  else allocated(*region, address, bytes, kind == Access::fresh);
}

void block_starts(const char* memory, size_t bytes) {
  if (shared_region.first != memory) {
    shared_region.first = memory;
    shared_region.end = memory + bytes;
    shared_region.cells = make_cells(bytes);
  } else {
    std::memset(static_cast<void*>(shared_region.cells), 0, (shared_used / kGranule + 1) * sizeof(Cell));
  }
  shared_used = 0;
  early_read.pointer = nullptr;
}

void device_added(int device, const char* memory, size_t bytes) {
  device_regions.reserve(64);                      // region_of keeps a pointer into it
  device_regions.push_back({memory, memory + bytes, make_cells(bytes), device});
}

const bool registered = [] {
  note_access = on_note;
  on_block_start = block_starts;
  on_block_end = block_ends;
  on_device_added = device_added;
  return true;
}();

}  // namespace

void check(const char* pointer, size_t bytes, Access kind, Site site) {
  if (!current) return;                            // the launchers are compiled with the kernels
  const Region* region = region_of(pointer);
  if (!region) return;                             // its own stack
  if (statistics_wanted) count_access(*region, pointer, bytes, site);
  const Block& block = *current->block;
  access(*region, pointer, bytes, kind,
         {block.operation, static_cast<uint32_t>(block.linear), site, static_cast<uint16_t>(block.epoch),
          static_cast<uint16_t>(current->warp_epoch), current->linear, 0, false});
}

void check_typed(const char* pointer, size_t bytes, Access kind, Site site) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes && current && region_of(pointer))
    fail("misaligned ", word_of(kind), " at ", line_of(site), ": ", bytes, " bytes at ", static_cast<const void*>(pointer),
         ", which is no multiple of ", bytes, "; a GPU stops the program here");
  check(pointer, bytes, kind, site);
}

}  // namespace minialex::emulated::checker
