// What the CUDA words in emulated.h and emulated_tensor_core.h are made of.  A CUDA thread is a fiber; whatever makes threads
// wait for each other (barrier, shuffle, tensor-core product) is a rendezvous of fibers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>
#include <utility>
#include <vector>
#include "minialex/check.h"
#include "types.h"

// The place of a call in a kernel's source.  Two parameters, since g++ takes the line of a default Location{...} from this header.
#define MINIALEX_CALLER const char *caller_file = __builtin_FILE(), int caller_line = __builtin_LINE()
#define MINIALEX_CALLED_AT (::minialex::emulated::Location{caller_file, caller_line})
#define MINIALEX_HERE (::minialex::emulated::Location{__FILE__, __LINE__})
// For functions that tell the checker about their accesses themselves.
#define MINIALEX_UNCHECKED __attribute__((no_sanitize("thread")))

namespace minialex::emulated {

struct Location {
  const char* file;
  int line;
};
inline bool operator==(const Location& a, const Location& b) {
  return a.line == b.line && (a.file == b.file || !std::strcmp(a.file, b.file));
}
std::ostream& operator<<(std::ostream& out, const Location& location);   // relu.cu:12

struct Fiber;
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes, valid_bytes, group;
};

struct Block {                                     // a running block, as its threads see it
  dim3 grid_size, block_size;
  uint3 index;
  uint64_t linear;                                 // number of the block in the grid
  uint32_t epoch;                                  // __syncthreads passed so far, plus 1
  uint32_t operation;                              // of the stream, see checker.h
  int device;
};

struct Thread {
  enum class State : uint8_t { fresh, ready, at_barrier, in_collective, done };
  uint3 index;
  Block* block;
  Fiber* fiber;                                    // nullptr before it starts and after it returned
  uint16_t linear;                                 // number of the thread in its block
  uint8_t warp, lane;
  State state;
  uint32_t warp_epoch;                             // __syncwarp passed so far
  Location waits_at;
  const char* waits_for;
  unsigned copy_group;
  std::vector<AsyncCopy> copies;                   // asynchronous copies issued and not yet waited for
};

// The CUDA thread this OS thread executes; nullptr outside kernels.  One pointer of static TLS: a module that is loaded late gets no more.
extern __thread Thread* current __attribute__((tls_model("initial-exec")));

// Ends the launch: it throws DeviceError with kernel, block, thread and this message.  Outside a kernel it throws at once.
[[noreturn]] void fail_with(std::string&& message);
template <class... Parts> [[noreturn]] void fail(const Parts&... parts) { fail_with(text(parts...)); }

// Every thread of the block must come to the same line.
void barrier(Location location);
enum class Reduce { all, any, count };
int barrier_reduce(bool predicate, Reduce reduce, Location location);

// The lanes in `mask` meet; the last one runs execute(arguments of the 32 lanes, mask) for all of them, then all go on.
// `aligned`: needs all 32 lanes alive (mma, ldmatrix).  `what` names the operation in messages.
using Execute = void (*)(void** lane_arguments, uint32_t mask);
void collective(void* arguments, uint32_t mask, Execute execute, const char* what, bool aligned, Location location);
void sync_warp(uint32_t mask, Location location);

// Shared memory.  `tag` is unique for each array; fresh memory holds 0xFF bytes, which are NaNs.
void* static_shared(const void* tag, const char* name, size_t bytes, size_t alignment);
void* dynamic_shared(size_t bytes, Location location);
bool inside_shared_array(const void* pointer, size_t bytes);

// Each ends the launch where the pointer is not aligned to `alignment` or [pointer, pointer + bytes) is no memory of that kind.
void check_aligned(const void* pointer, size_t alignment, const char* what, MINIALEX_CALLER);
void check_shared_pointer(const void* pointer, size_t bytes, size_t alignment, const char* what, Location location);
void check_global_pointer(const void* pointer, size_t bytes, size_t alignment, const char* what, Location location);

// cp.async: `to` is poisoned at once, the bytes land in cp_async_wait, which is as late as CUDA allows.
// valid_bytes come from `from`, the rest of `bytes` becomes zero.
void cp_async(void* to, const void* from, unsigned bytes, unsigned valid_bytes, Location location);
void cp_async_commit();
void cp_async_wait(unsigned groups_left);          // all but the newest `groups_left` groups have landed

}  // namespace minialex::emulated
