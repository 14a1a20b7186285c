// The emulator's self-test: each section prints a line, "ok" or what is wrong.  test_emulated_smoke.py builds and runs it.
#include <minialex/kernel.h>
#include <array>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>
#include "settings.h"

using namespace minialex;

namespace {

constexpr int THREADS = 128, BLOCKS = 5, SIZE = THREADS * BLOCKS;

// The sum of each block: shuffles in a warp, shared memory and barriers between warps.
__global__ void __launch_bounds__(THREADS) block_sums(const float* x, float* sums) {
  MINIALEX_SHARED(float, partial, [THREADS / 32]);
  float sum = x[blockIdx.x * THREADS + threadIdx.x];
  for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, bits);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0] + partial[1] + (partial[2] + partial[3]);
}

struct Tile { float values[THREADS]; };

// Each block reversed, twice through dynamic shared memory; counts its even elements on the way.
__global__ void reverse(const float* x, float* y, int* even) {
  MINIALEX_DYNAMIC_SHARED(Tile, tile);
  const int i = blockIdx.x * THREADS + threadIdx.x;
  tile.values[threadIdx.x] = x[i];
  const int count = __syncthreads_count(int(x[i]) % 2 == 0);
  const float mirrored = tile.values[THREADS - 1 - threadIdx.x];
  __syncthreads();
  tile.values[threadIdx.x] = mirrored;
  __syncwarp();
  y[i] = tile.values[threadIdx.x];
  if (threadIdx.x == 0) atomicAdd(even, count);
}

// Row by row: every kind of shuffle, by 3 in groups of 8, then every vote of "lane < 5" among the lower 16 lanes.
__global__ void warp_words(int* y) {
  const int lane = threadIdx.x;
  const unsigned all = 0xFFFFFFFFu;
  y[lane] = __shfl_sync(all, lane, 3, 8);
  y[32 + lane] = __shfl_up_sync(all, lane, 3, 8);
  y[64 + lane] = __shfl_down_sync(all, lane, 3, 8);
  y[96 + lane] = __shfl_xor_sync(all, lane, 11, 8);
  if (lane >= 16) return;
  y[128 + lane] = int(__ballot_sync(0xFFFFu, lane < 5));
  y[160 + lane] = __any_sync(0xFFFFu, lane < 5) + 2 * __all_sync(0xFFFFu, lane < 5) + 4 * __all_sync(0xFFFFu, lane < 16);
}

// Every block reads what the block before the launch left; block `bad` goes wrong.
__global__ void many_blocks(int* y, unsigned bad) {
  MINIALEX_SHARED(int, left, [32]);
  left[threadIdx.x] = y[blockIdx.x];
  __syncthreads();
  if (blockIdx.x == bad && threadIdx.x == 5) *static_cast<volatile int*>(nullptr) = 1;
  if (threadIdx.x == 0) y[blockIdx.x] = left[31] + 1;
}

__global__ void waits_for_ever(float* x) {
  if (threadIdx.x < 3) __syncwarp();
  else __syncthreads();
  x[0] = 0.f;
}

__global__ void add_one(float* x) { x[blockIdx.x * THREADS + threadIdx.x] += 1.f; }
__global__ void half_a_barrier(float* x) {
  if (threadIdx.x < 7) __syncthreads();
  x[threadIdx.x] = 0.f;
}
__global__ void half_a_warp(float* x) {
  if (threadIdx.x < 7) x[threadIdx.x] = __shfl_down_sync(0xFFFFFFFFu, x[threadIdx.x], 1);
}
__global__ void through_a_table(float* const* table) { table[0][threadIdx.x] = 0.f; }
__global__ void past_the_end(float* x) { x[SIZE] = 0.f; }
__global__ void past_a_shared_array(float* x) {
  MINIALEX_SHARED(float, small, [4]);
  small[threadIdx.x + 1] = 0.f;
  x[threadIdx.x] = small[0];
}
__global__ void deep(float* x) {
  volatile char local[400 << 10];
  local[threadIdx.x] = 1;
  x[0] = local[threadIdx.x];
}
__global__ void divides(float* x, int by) { x[0] = float(SIZE / by); }

int failures = 0;
void check(const char* what, const std::string& wrong) {
  std::printf("%s: %s\n", what, wrong.empty() ? "ok" : wrong.c_str());
  failures += !wrong.empty();
}

// "" where `action` throws an Error whose message holds every word.
template <class Error = DeviceError> std::string refused(const std::function<void()>& action, const std::vector<std::string>& words) {
  try {
    action();
  } catch (const Error& error) {
    for (const auto& word : words)
      if (std::string(error.what()).find(word) == std::string::npos) return "the message has no \"" + word + "\": " + error.what();
    return "";
  }
  return "no error";
}

std::vector<float> numbers() {
  std::vector<float> result(SIZE);
  for (int i = 0; i < SIZE; ++i) result[i] = float(i * 7 % 31);
  return result;
}

struct Memory {                                    // SIZE floats on the current device
  float* data = static_cast<float*>(runtime::allocate(SIZE * sizeof(float)));
  ~Memory() { runtime::release(data); }
  std::vector<float> values(Stream stream) const {
    std::vector<float> result(SIZE);
    runtime::copy(result.data(), data, SIZE * sizeof(float), stream);
    return result;
  }
};

std::string kernels_are_right(Stream stream) {
  Memory x, y, sums, even;
  const auto input = numbers();
  runtime::copy(x.data, input.data(), SIZE * sizeof(float), stream);
  runtime::fill(even.data, 0, sizeof(int), stream);
  MINIALEX_LAUNCH(block_sums, dim3(BLOCKS), dim3(THREADS), 0, stream, x.data, sums.data);
  MINIALEX_LAUNCH(reverse, BLOCKS, THREADS, sizeof(Tile), stream, x.data, y.data, reinterpret_cast<int*>(even.data));
  const auto got_sums = sums.values(stream), got = y.values(stream), got_even = even.values(stream);
  int count = 0;
  for (int block = 0; block < BLOCKS; ++block) {
    float sum = 0.f;
    for (int i = 0; i < THREADS; ++i) {
      sum += input[block * THREADS + i];
      count += int(input[block * THREADS + i]) % 2 == 0;
      const float mirrored = input[block * THREADS + THREADS - 1 - i], found = got[block * THREADS + i];
      if (found != mirrored) return text("element ", i, " of block ", block, " is ", found, ", not ", mirrored);
    }
    if (got_sums[block] != sum) return text("the sum of block ", block, " is ", got_sums[block], ", not ", sum);
  }
  const int counted = *reinterpret_cast<const int*>(got_even.data());
  return counted == count ? "" : text(counted, " even elements, not ", count);
}

std::string warp_words_are_right(Stream stream) {
  Memory y;
  runtime::fill(y.data, 0, SIZE * sizeof(float), stream);
  MINIALEX_LAUNCH(warp_words, 1, 32, 0, stream, reinterpret_cast<int*>(y.data));
  const auto got = y.values(stream);
  const int* row = reinterpret_cast<const int*>(got.data());
  for (int lane = 0; lane < 32; ++lane) {
    const int in_group = lane % 8, other = lane ^ 11;
    const int expected[] = {lane / 8 * 8 + 3, in_group < 3 ? lane : lane - 3, in_group > 4 ? lane : lane + 3,
                            other / 8 > lane / 8 ? lane : other, lane < 16 ? 31 : 0, lane < 16 ? 1 + 4 : 0};
    for (int i = 0; i < 6; ++i)
      if (row[i * 32 + lane] != expected[i]) return text("lane ", lane, " of row ", i, " is ", row[i * 32 + lane], ", not ", expected[i]);
  }
  return "";
}

// The emulator's fmaf against the library's, which a name in parentheses means; the first three round twice in double.
std::string fused_is_exact() {
  const auto power = [](int exponent) { return ldexpf(1.f, exponent); };
  std::vector<std::array<float, 3>> cases = {
      {power(-24) * (1 + power(-23)), 1 - power(-23), 1 + power(-23)}, {-power(-24) * (1 + power(-23)), 1 - power(-23), -1 - power(-23)},
      {power(-75) * (1 + power(-23)), power(-75) * (1 - power(-23)), power(-149)}, {0.f, -1.f, 0.f}, {3e38f, 2.f, -3e38f},
      {INFINITY, 0.f, 1.f}};
  unsigned long long state = 1;
  const auto next = [&] { return __uint_as_float(unsigned((state = state * 6364136223846793005u + 1442695040888963407u) >> 32)); };
  for (int i = 0; i < 200000; ++i) cases.push_back({next(), next(), next()});
  for (const auto& [a, b, c] : cases) {
    const float got = fmaf(a, b, c), exact = (fmaf)(a, b, c);
    if (__float_as_uint(got) != __float_as_uint(exact) && !(got != got && exact != exact))
      return text(a, " * ", b, " + ", c, " is ", got, ", not ", exact);
  }
  return "";
}

// Long enough that all OS threads take part, and one of them meets the error.
std::string many_blocks_are_right(Stream stream) {
  constexpr unsigned MANY = 20000, NONE = ~0u;
  int* y = static_cast<int*>(runtime::allocate(MANY * sizeof(int)));
  runtime::fill(y, 0, MANY * sizeof(int), stream);
  const auto run = [&](unsigned bad) {
    MINIALEX_LAUNCH(many_blocks, MANY, 32, 0, stream, y, bad);
    runtime::stream_synchronize(stream);
  };
  run(NONE);
  std::string wrong = refused([&] { run(MANY / 2); }, {"many_blocks", "block (10000,0,0) thread (5,0,0)", "null pointer"});
  runtime::fill(y, 0, MANY * sizeof(int), stream);
  run(NONE);
  run(NONE);
  std::vector<int> got(MANY);
  runtime::copy(got.data(), y, MANY * sizeof(int), stream);
  for (unsigned i = 0; i < MANY && wrong.empty(); ++i)
    if (got[i] != 2) wrong = text("block ", i, " has ", got[i], ", not 2");
  runtime::release(y);
  return wrong;
}

void test_errors(Stream stream) {
  Memory x;
  const auto launch = [&](void (*kernel)(float*), const char* name) {
    emulated::launch(MINIALEX_HERE, name, kernel, 1, 32, 0, stream, x.data);
    runtime::stream_synchronize(stream);
  };
  const auto after = [&](const char* what, const std::string& found) {               // the next kernels are right again
    check(what, found.empty() ? kernels_are_right(stream) : found);
  };
  after("divergent barrier", refused([&] { launch(half_a_barrier, "half_a_barrier"); },
                                     {"kernel half_a_barrier", "block (0,0,0) thread (", "smoke.cu:", "divergent"}));
  after("divergent warp", refused([&] { launch(half_a_warp, "half_a_warp"); }, {"divergent warp", "__shfl_down_sync", "smoke.cu:"}));
  after("deadlock", refused([&] { launch(waits_for_ever, "waits_for_ever"); },
                            {"deadlock", "3 threads wait in __syncwarp at smoke.cu:", "29 threads wait in __syncthreads at smoke.cu:"}));
  after("write past an allocation", refused([&] { launch(past_the_end, "past_the_end"); },
                                            {"kernel past_the_end", "past the end of an allocation of 2560 bytes"}));
  after("write past a shared array", refused([&] { launch(past_a_shared_array, "past_a_shared_array"); },
                                             {"past the end of shared array small"}));
  after("stack overflow", refused([&] { launch(deep, "deep"); }, {"kernel deep", "overflowed", "thread (0,0,0)"}));
  after("division by zero", refused([&] {
    MINIALEX_LAUNCH(divides, 1, 1, 0, stream, x.data, 0);
    runtime::stream_synchronize(stream);
  }, {"divided by zero"}));
  after("null pointer", refused([&] {
    MINIALEX_LAUNCH(add_one, 1, 1, 0, stream, nullptr);
    runtime::stream_synchronize(stream);
  }, {"add_one", "null pointer"}));
  check("too many threads", refused([&] { MINIALEX_LAUNCH(add_one, 1, 1025, 0, stream, x.data); }, {"1025", "1024"}));
  check("too little dynamic shared memory", refused([&] {
    MINIALEX_LAUNCH(reverse, 1, 1, 16, stream, x.data, x.data, nullptr);
    runtime::stream_synchronize(stream);
  }, {"512 bytes, the launch gives 16"}));
  check("memory of another device", refused([&] {
    runtime::set_device(1);
    Memory other;
    runtime::set_device(0);
    MINIALEX_LAUNCH(add_one, 1, 1, 0, stream, other.data);
  }, {"argument 1 of 1", "memory of device 1", "device 0"}));
  check("memory of another device in a table", refused([&] {
    runtime::set_device(1);
    Memory other;
    runtime::set_device(0);
    runtime::copy(x.data, &other.data, sizeof other.data, stream);
    MINIALEX_LAUNCH(through_a_table, 1, 1, 0, stream, reinterpret_cast<float* const*>(x.data));
    runtime::stream_synchronize(stream);
  }, {"through_a_table", "memory of device 1", "peer access is not enabled"}));
  check("freed memory", refused([&] {
    float* gone;
    { Memory freed; gone = freed.data; }
    MINIALEX_LAUNCH(add_one, 1, 1, 0, stream, gone);
  }, {"freed"}));
  check("no memory left", refused<DeviceMemoryError>([] { runtime::allocate(size_t(1) << 50); }, {"1125899906842624 bytes asked", "free"}));
  check("default stream", refused([&] { MINIALEX_LAUNCH(add_one, 1, 1, 0, nullptr, x.data); }, {"default stream"}));
  check("bad setting", refused([] { emulated::configure("order", "sideways"); }, {"order", "sideways", "forward, reverse, random"}));
  after("after all that", "");
}

// A copy between devices that waits for the producer by an event: in lazy streams it alone makes the producer run.
std::string events_order(Stream stream) {
  runtime::set_device(1);
  Stream second = runtime::stream_create();
  Memory there;
  runtime::set_device(0);
  Memory here;
  Event ready = runtime::event_create();
  runtime::fill(here.data, 0, SIZE * sizeof(float), stream);
  for (int i = 0; i < 3; ++i) MINIALEX_LAUNCH(add_one, BLOCKS, THREADS, 0, stream, here.data);
  runtime::event_record(ready, stream);
  runtime::stream_wait(second, ready);
  runtime::copy_peer(there.data, 1, here.data, 0, SIZE * sizeof(float), second);
  const auto got = there.values(second);
  runtime::event_destroy(ready);
  runtime::stream_destroy(second);
  for (float value : got)
    if (value != 3.f) return text("an element is ", value, ", not 3");
  return "";
}

// Without an event, lazy streams copy before the producer has run, as a GPU may.
std::string missing_event_shows(Stream stream) {
  Stream second = runtime::stream_create();
  Memory x;
  runtime::fill(x.data, 0, SIZE * sizeof(float), stream);
  runtime::stream_synchronize(stream);
  MINIALEX_LAUNCH(add_one, BLOCKS, THREADS, 0, stream, x.data);
  const float early = x.values(second)[0], late = x.values(stream)[0];
  runtime::stream_destroy(second);
  return early == 0.f && late == 1.f ? "" : text("before: ", early, ", behind: ", late);
}

// What the host does with a pointer to device memory; an earlier handler of the signal still gets it.
int host_fault() {
  std::signal(SIGSEGV, [](int signal) {
    std::puts("the earlier handler ran");
    std::fflush(stdout);
    std::signal(signal, SIG_DFL);
  });
  Memory x;
  Stream stream = runtime::stream_create();
  kernels_are_right(stream);
  return int(*static_cast<volatile float*>(x.data));
}

int print_settings() {
  try {
    const auto& s = emulated::settings();
    std::printf("order %d, streams %d, seed %d, %d devices of %d MiB\n", int(s.order), int(s.streams), int(s.seed), runtime::device_count(),
                int(s.memory >> 20));
    return 0;
  } catch (const DeviceError& error) {
    std::puts(error.what());
    return runtime::device_count() == 0 && runtime::unavailable_reason() == error.what() ? 2 : 1;
  }
}

}  // namespace

int main(int count, char** words) {
  if (count > 1) return words[1] == std::string("settings") ? print_settings() : host_fault();
  Stream stream = runtime::stream_create();
  check("fmaf", fused_is_exact());
  for (const char* order : {"forward", "reverse", "random:1", "random:2", "random:3"}) {
    emulated::configure("order", order);
    check(text("order ", order).c_str(), kernels_are_right(stream));
    check("  shuffles and votes", warp_words_are_right(stream));
    check("  many blocks", many_blocks_are_right(stream));
  }
  for (const char* streams : {"now", "lazy", "random:5"}) {
    emulated::configure("streams", streams);
    emulated::configure("order", "forward");
    check(text("streams ", streams).c_str(), events_order(stream));
    test_errors(stream);
  }
  emulated::configure("streams", "lazy");
  check("missing event", missing_event_shows(stream));
  emulated::configure("protect", "2");
  check("protection of every launch", kernels_are_right(stream));
  runtime::stream_destroy(stream);
  return failures != 0;
}
