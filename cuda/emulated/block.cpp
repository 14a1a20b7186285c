#include "block.h"
#include <algorithm>
#include <map>

namespace minialex::emulated {

__thread Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;


std::ostream& operator<<(std::ostream& out, const Location& location) {
  const char* slash = std::strrchr(location.file, '/');
  return out << (slash ? slash + 1 : location.file) << ':' << location.line;
}

namespace {
template <class Index> std::string triple(const Index& index) { return text('(', index.x, ',', index.y, ',', index.z, ')'); }
}  // namespace

void Launch::fail(std::string&& message) {
  std::lock_guard<std::mutex> guard(lock);
  if (!failed) error = text("kernel ", kernel->name, " (launched at ", kernel->location, "), ", std::move(message));
  failed = true;
}

BlockRunner::BlockRunner() : threads_(kMaxThreads) {
  for (unsigned i = 0; i < kMaxThreads; ++i) {
    threads_[i].block = this;
    threads_[i].linear = static_cast<uint16_t>(i);
    threads_[i].warp = static_cast<uint8_t>(i / 32);
    threads_[i].lane = static_cast<uint8_t>(i % 32);
  }
  block_size = dim3(0, 0, 0);
}

void fail_with(std::string&& message) {
  if (!current) throw DeviceError(message);
  running_block().fail(std::move(message));
}

void BlockRunner::fail(std::string&& message) {
  launch_->fail(text("block ", triple(index), " thread ", triple(current->index), ": ", std::move(message)));
  std::string().swap(message);                     // no destructor runs on the stack that is left here
  leave();
}

void BlockRunner::leave() {
  Fiber& from = *current->fiber;
  current = nullptr;
  fiber_switch(from, os_thread_);
  std::abort();                                    // a block that ended is never resumed; its fibers start anew
}

bool BlockRunner::run(Launch& launch, uint64_t number) {
  launch_ = &launch;
  const KernelLaunch& kernel = *launch.kernel;
  linear = number;
  index = {static_cast<unsigned>(number % kernel.grid.x), static_cast<unsigned>(number / kernel.grid.x % kernel.grid.y),
           static_cast<unsigned>(number / kernel.grid.x / kernel.grid.y)};
  operation = launch.operation;
  device = launch.device;
  random_ = Random(launch.seed ^ number * 0xBF58476D1CE4E5B9u);
  prepare(kernel);
  shared.begin_block(kernel.shared_bytes);
  fiber_from_os_thread(os_thread_);
  resume(os_thread_, *next_runnable());
  current = nullptr;
  if (!launch.failed && on_block_end) {
    if (std::string found = on_block_end(); !found.empty()) launch.fail(text("block ", triple(index), ": ", found));
  }
  if (!launch.failed) {
    if (std::string damage = shared.damage(); !damage.empty()) launch.fail(text("block ", triple(index), ": ", damage));
  }
  if (!launch.failed) return true;
  idle_ = fibers_;                                 // whatever they were in the middle of is given up
  for (Fiber* fiber : fibers_) fiber_restart(*fiber);
  return false;
}

void BlockRunner::prepare(const KernelLaunch& kernel) {
  bool same_size = block_size.x == kernel.block.x && block_size.y == kernel.block.y && block_size.z == kernel.block.z;
  grid_size = kernel.grid;
  block_size = kernel.block;
  count_ = alive_ = block_size.x * block_size.y * block_size.z;
  epoch = 1;
  waiting_ = 0;
  head_ = tail_ = kRing;
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    if (!same_size) thread.index = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
    thread.fiber = nullptr;
    thread.state = State::fresh;
    thread.warp_epoch = thread.copy_group = 0;
    if (!thread.copies.empty()) thread.copies.clear();
  }
  for (unsigned first = 0; first < count_; first += 32) {
    Warp& warp = warps_[first / 32];
    warp.alive = count_ - first >= 32 ? ~0u : (1u << (count_ - first)) - 1;
    warp.in_flight = 0;
    std::fill_n(warp.used, Warp::kSlots, false);
  }
  Order order = settings().order;
  for (unsigned i = 0; i < count_; ++i) push_back(order == Order::reverse ? count_ - 1 - i : i);
  if (order == Order::random)
    for (unsigned i = count_ - 1; i > 0; --i) std::swap(ring_[(head_ + i) % kRing], ring_[(head_ + random_.below(i + 1)) % kRing]);
}

// A fiber runs one thread after the other; one that finds no new thread to start is idle until it is needed again, maybe by
// another OS thread.  So nothing of the OS thread may be kept across a round, and the round is a call of its own.
void BlockRunner::fiber_main() {
  fiber_entered();
  for (;;) fiber_round();
}

__attribute__((noinline)) void BlockRunner::fiber_round() {
  BlockRunner& block = running_block();
  const KernelLaunch& kernel = *block.launch_->kernel;
  try {
    kernel.run_thread(kernel.arguments.get());
  } catch (const std::exception& error) {
    emulated::fail(error.what());
  }
  Thread& done = *current;
  Fiber& own = *done.fiber;
  block.thread_returns(done);
  Thread* next = block.next_runnable();
  if (!next && block.alive_) block.deadlock();
  done.fiber = nullptr;
  if (!next) {
    block.idle_.push_back(&own);
    fiber_switch(own, block.os_thread_);
  } else if (next->state == State::fresh) {        // no switch at all
    next->fiber = &own;
    next->state = State::ready;
    current = next;
  } else {
    block.idle_.push_back(&own);
    block.resume(own, *next);
  }
}

void BlockRunner::resume(Fiber& from, Thread& next) {
  if (next.state == State::fresh) {
    if (idle_.empty()) {
      fibers_.push_back(fiber_create(static_cast<int>(fibers_.size()), &BlockRunner::fiber_main));
      idle_.push_back(fibers_.back());
    }
    next.fiber = idle_.back();
    idle_.pop_back();
  }
  next.state = State::ready;
  current = &next;
  fiber_switch(from, *next.fiber);
}

Thread* BlockRunner::next_runnable() { return head_ == tail_ ? nullptr : &threads_[ring_[head_++ % kRing]]; }

void BlockRunner::wait(State state, const char* what, Location location) {
  Thread& thread = *current;
  thread.state = state;
  thread.waits_for = what;
  thread.waits_at = location;
  Thread* next = next_runnable();
  if (!next) deadlock();
  if (next == &thread) thread.state = State::ready;
  else resume(*thread.fiber, *next);
}

void BlockRunner::thread_returns(Thread& thread) {
  bool strict = settings().strict;
  if (!thread.copies.empty()) emulated::fail("returned with ", thread.copies.size(), " asynchronous copies nobody waited for");
  thread.state = State::done;
  --alive_;
  Warp& warp = warps_[thread.warp];
  warp.alive &= ~(1u << thread.lane);
  if (waiting_) {
    if (strict)
      emulated::fail("divergent barrier: this thread returned while ", waiting_, " threads of its block wait in __syncthreads at ",
                     barrier_location_);
    if (waiting_ == alive_) release_barrier();
  }
  for (int slot = 0; warp.in_flight && slot < Warp::kSlots; ++slot) {
    if (!warp.used[slot] || !(warp.slots[slot].mask >> thread.lane & 1)) continue;
    WarpOperation& operation = warp.slots[slot];
    if (strict)
      emulated::fail("divergent warp: lane ", int(thread.lane), " returned while other lanes wait for it in ", operation.what, " at ",
                     operation.location);
    if (operation.arrived == (operation.mask & warp.alive)) complete(warp, slot, -1);
  }
}

void BlockRunner::deadlock() {
  std::map<std::string, std::pair<int, const Thread*>> groups;
  for (unsigned i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    bool done = thread.state == State::done;
    auto& group = groups[done ? std::string("returned") : text("wait in ", thread.waits_for, " at ", thread.waits_at)];
    if (!group.first++) group.second = &thread;
  }
  std::string message = "deadlock, no thread can go on:";
  const char* separator = " ";
  for (auto& [what, group] : groups) {
    message += text(separator, group.first, " threads ", what, " (the first is ", triple(group.second->index), ")");
    separator = "; ";
  }
  groups.clear();
  fail(std::move(message));
}

void BlockRunner::barrier(Location location) {
  if (settings().strict) {
    if (waiting_ && !(barrier_location_ == location))
      emulated::fail("divergent barrier: this thread is in __syncthreads at ", location, ", other threads wait in the one at ",
                     barrier_location_);
    if (alive_ != count_)
      emulated::fail("divergent barrier: __syncthreads at ", location, ", but ", count_ - alive_, " threads of the block have returned");
  }
  barrier_location_ = location;
  waiting_threads_[waiting_++] = current->linear;
  if (waiting_ == alive_) release_barrier();
  wait(State::at_barrier, "__syncthreads", location);
}

void BlockRunner::release_barrier() {
  Order order = settings().order;
  if (order == Order::random) {
    for (unsigned i = waiting_ - 1; i > 0; --i) std::swap(waiting_threads_[i], waiting_threads_[random_.below(i + 1)]);
    for (unsigned i = 0; i < waiting_; ++i) push_back(waiting_threads_[i]);
  } else {
    for (unsigned i = 0; i < count_; ++i) {
      unsigned thread = order == Order::reverse ? count_ - 1 - i : i;
      if (threads_[thread].state != State::done) push_back(thread);
    }
  }
  waiting_ = 0;
  ++epoch;
}

int BlockRunner::barrier_reduce(bool predicate, Reduce reduce, Location location) {
  if (!waiting_) reduction_[0] = 1, reduction_[1] = reduction_[2] = 0;
  reduction_[int(Reduce::all)] &= predicate;
  reduction_[int(Reduce::any)] |= predicate;
  reduction_[int(Reduce::count)] += predicate;
  if (waiting_ + 1 == alive_) std::copy_n(reduction_, 3, reduction_result_);
  barrier(location);
  return reduction_result_[int(reduce)];
}

void barrier(Location location) { running_block().barrier(location); }
int barrier_reduce(bool predicate, Reduce reduce, Location location) { return running_block().barrier_reduce(predicate, reduce, location); }

}  // namespace minialex::emulated
