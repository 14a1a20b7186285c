// One block: its threads as fibers on one OS thread, their order, their barrier, the operations of their warps.
#pragma once
#include <atomic>
#include <mutex>
#include <string>
#include <vector>
#include "emulated.h"
#include "fiber.h"
#include "settings.h"

namespace minialex::emulated {

constexpr unsigned kMaxThreads = 1024, kWarpsPerBlock = 32;
constexpr size_t kMaxStaticShared = 48 * 1024, kMaxShared = 227 * 1024;

struct Launch {                                    // a kernel that is being run, by one or more OS threads
  const KernelLaunch* kernel;
  int device;
  uint32_t operation;
  uint64_t blocks;
  alignas(64) std::atomic<uint64_t> next{0};       // alone in its line of the cache, which all OS threads write
  alignas(64) uint64_t seed;
  std::atomic<bool> failed{false};
  std::mutex lock;
  std::string error;                               // the first one
  void fail(std::string&& message);
};
void run_kernel(const KernelLaunch& kernel, int device, uint32_t operation);     // returns when all blocks have; throws DeviceError

class Random {                                     // xorshift: fast, and the same everywhere
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u | 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  unsigned below(unsigned end) { return static_cast<unsigned>((next() >> 32) * end >> 32); }

 private:
  uint64_t state_;
};

class SharedMemory {                               // of the block that runs: an arena, NaNs and canaries
 public:
  SharedMemory();
  void begin_block(size_t dynamic_bytes);
  void* find_or_add(const void* tag, const char* name, size_t bytes, size_t alignment);
  char* dynamic() const { return arena_ + kDynamicOffset; }
  size_t dynamic_bytes() const { return dynamic_bytes_; }
  bool owns(const void* pointer) const { return pointer >= arena_ && pointer < arena_ + kArenaBytes; }
  bool inside_array(const void* pointer, size_t bytes) const;
  std::string damage() const;                      // "" or which array was written past an end

 private:
  // 128 bytes of alignment and no more, as CUDA promises of dynamic shared memory.
  static constexpr size_t kArenaBytes = 512 * 1024, kDynamicOffset = 1024 + 128, kCanaryBytes = 64;
  struct Array { const void* tag; const char* name; size_t offset, bytes; };
  void open(size_t offset, size_t bytes);
  bool intact(size_t offset) const;
  char* arena_;
  size_t used_ = 0, dynamic_bytes_ = 0, static_bytes_ = 0;
  std::vector<Array> arrays_;
};

struct WarpOperation {                             // a rendezvous of lanes that has begun
  uint32_t mask, arrived;
  Execute execute;
  const char* what;
  Location location;
  void* arguments[32];
};

struct Warp {
  static constexpr int kSlots = 8;                 // masks that share no lane may meet at the same time
  uint32_t alive;
  int in_flight;
  bool used[kSlots];
  WarpOperation slots[kSlots];
};

class BlockRunner : public Block {
 public:
  BlockRunner();
  bool run(Launch& launch, uint64_t number);       // false: the launch has failed
  void barrier(Location location);
  int barrier_reduce(bool predicate, Reduce reduce, Location location);
  void collective(void* arguments, uint32_t mask, Execute execute, const char* what, bool aligned, Location location);
  [[noreturn]] void fail(std::string&& message);
  SharedMemory shared;

 private:
  using State = Thread::State;
  static void fiber_main();
  static void fiber_round();
  void prepare(const KernelLaunch& kernel);
  void thread_returns(Thread& thread);
  void wait(State state, const char* what, Location location);      // until somebody makes the current thread runnable
  void resume(Fiber& from, Thread& next);
  Thread* next_runnable();
  void release_barrier();
  void complete(Warp& warp, int slot, int except);
  [[noreturn]] void deadlock();
  [[noreturn]] void leave();
  void push_back(unsigned thread) { ring_[tail_++ % kRing] = static_cast<uint16_t>(thread); }
  void push_front(unsigned thread) { ring_[--head_ % kRing] = static_cast<uint16_t>(thread); }

  static constexpr unsigned kRing = 2 * kMaxThreads;
  std::vector<Thread> threads_;
  std::vector<Fiber*> fibers_, idle_;              // all, and those that run no thread
  Fiber os_thread_;
  Launch* launch_ = nullptr;
  Random random_{1};
  unsigned count_ = 0, alive_ = 0, head_ = 0, tail_ = 0;
  unsigned waiting_ = 0;                           // at the barrier
  Location barrier_location_{};
  uint16_t waiting_threads_[kMaxThreads];
  int reduction_[3], reduction_result_[3];
  uint16_t ring_[kRing];                           // the runnable threads, in order
  Warp warps_[kWarpsPerBlock];
};

inline BlockRunner& running_block() { return *static_cast<BlockRunner*>(current->block); }

}  // namespace minialex::emulated
