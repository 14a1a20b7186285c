// A grid over OS threads: each runs one block at a time.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <numeric>
#include <thread>
#include "block.h"
#include "devices.h"

namespace minialex::emulated {
namespace {

class Runners {                                    // their stacks are expensive to make and cheap to keep
 public:
  std::unique_ptr<BlockRunner> take() {
    std::lock_guard<std::mutex> guard(lock_);
    if (idle_.empty()) return std::make_unique<BlockRunner>();
    auto runner = std::move(idle_.back());
    idle_.pop_back();
    return runner;
  }
  void give(std::unique_ptr<BlockRunner> runner) {
    std::lock_guard<std::mutex> guard(lock_);
    idle_.push_back(std::move(runner));
  }

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<BlockRunner>> idle_;
};
Runners& runners() {
  static auto* all = new Runners;                  // never destroyed: OS threads may still run when the process ends
  return *all;
}

// Which block comes at place `turn`: all of them in a fixed order, in `random` a multiplication modulo the number of blocks.
uint64_t block_at(uint64_t turn, const Launch& launch, uint64_t factor) {
  switch (settings().order) {
    case Order::forward: return turn;
    case Order::reverse: return launch.blocks - 1 - turn;
    default: return static_cast<uint64_t>((static_cast<unsigned __int128>(turn) * factor + launch.seed % launch.blocks) % launch.blocks);
  }
}

template <class AfterBlock> void run_blocks(Launch& launch, const AfterBlock& after_block) {
  install_fault_handlers();
  uint64_t factor = 1;
  if (settings().order == Order::random) {
    Random random(launch.seed);
    do factor = random.next() % launch.blocks; while (std::gcd(factor, launch.blocks) != 1);
  }
  auto runner = runners().take();
  for (uint64_t turn; !launch.failed && (turn = launch.next++) < launch.blocks;)
    if (runner->run(launch, block_at(turn, launch, factor))) after_block();
  runners().give(std::move(runner));
}

class Pool {                                       // OS threads that help the one that launches
 public:
  explicit Pool(int helpers) {
    for (int i = 0; i < helpers; ++i) std::thread([this] { help(); }).detach();
  }
  // To wake helpers costs 10 us: a short launch is over before it pays.
  void run(Launch& launch) {
    using Clock = std::chrono::steady_clock;
    constexpr auto kAlone = std::chrono::microseconds(50);
    const auto start = Clock::now();
    bool alone = true;
    run_blocks(launch, [&] {
      if (!alone || launch.next >= launch.blocks || Clock::now() - start < kAlone) return;
      alone = false;
      share(launch);
    });
    if (alone) return;
    std::unique_lock<std::mutex> guard(lock_);
    launch_ = nullptr;                             // a helper that wakes up late finds nothing to do
    done_.wait(guard, [this] { return busy_ == 0; });
  }

 private:
  void share(Launch& launch) {
    {
      std::lock_guard<std::mutex> guard(lock_);
      launch_ = &launch;
      ++launches_;
    }
    wake_.notify_all();
  }
  void help() {
    for (uint64_t seen = 0;;) {
      std::unique_lock<std::mutex> guard(lock_);
      wake_.wait(guard, [&] { return launch_ && launches_ != seen; });
      seen = launches_;
      Launch* launch = launch_;
      ++busy_;
      guard.unlock();
      run_blocks(*launch, [] {});
      guard.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }
  std::mutex lock_;
  std::condition_variable wake_, done_;
  Launch* launch_ = nullptr;
  uint64_t launches_ = 0;
  int busy_ = 0;
};

int workers() {
  if (note_access) return 1;                       // the checker keeps one history
  if (settings().workers) return settings().workers;
  return std::min(8, static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
}

}  // namespace

void run_kernel(const KernelLaunch& kernel, int device, uint32_t operation) {
  static Pool* pool = workers() > 1 ? new Pool(workers() - 1) : nullptr;
  static uint64_t launches = 0;
  Launch launch;
  launch.kernel = &kernel;
  launch.device = device;
  launch.operation = operation;
  launch.seed = settings().seed * 0x94D049BB133111EBu + ++launches;
  launch.blocks = uint64_t(kernel.grid.x) * kernel.grid.y * kernel.grid.z;
  if (pool && launch.blocks > 1) pool->run(launch);
  else run_blocks(launch, [] {});
  if (launch.failed) throw DeviceError(launch.error);
}

}  // namespace minialex::emulated
