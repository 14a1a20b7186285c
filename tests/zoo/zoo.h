// A zoo of seeded bugs: each BUG has one mistake, each CORRECT has none and looks as if it had.  tests/test_zoo.py builds all of them
// three times, runs each in a process of its own and says which build must see what.  A line marked `// @name` must be in the
// message about that bug.  The kernel of a case bears the case's name.
#pragma once
#include <minialex/kernel.h>
#include <minialex/tensor_core.h>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace minialex::zoo {

struct Animal {
  const char* name;
  bool (*run)();                                   // true: the answer is right
};
inline std::vector<Animal>& animals() {
  static std::vector<Animal> all;
  return all;
}
struct Admitted {
  Admitted(const char* name, bool (*run)()) { animals().push_back({name, run}); }
};

#define ANIMAL(name)                                \
  static bool run_##name();                         \
  static const Admitted admitted_##name(#name, run_##name); \
  static bool run_##name()
#define BUG(name) ANIMAL(name)
#define CORRECT(name) ANIMAL(name)

constexpr int SIZE = 64;                           // numbers in each array

inline float* device_array(int size = SIZE) { return static_cast<float*>(runtime::allocate(size * sizeof(float))); }
inline std::vector<float> read(const float* from, Stream stream, int size = SIZE) {
  std::vector<float> values(size);
  runtime::copy(values.data(), from, size * sizeof(float), stream);
  return values;
}

struct Lab {                                       // x = 1, 2, 3, ... and y = 0 on device 0
  Stream stream;
  std::vector<float> input;
  float *x, *y;
  Lab() : stream((runtime::set_device(0), runtime::stream_create())), input(SIZE), x(device_array()), y(device_array()) {
    for (int i = 0; i < SIZE; ++i) input[i] = float(i + 1);
    runtime::copy(x, input.data(), SIZE * sizeof(float), stream);
    runtime::fill(y, 0, SIZE * sizeof(float), stream);
    runtime::stream_synchronize(stream);
  }
  // Is element i of `y` the same as expected(i)?
  template <class Expected> bool holds(Expected expected, const float* from = nullptr, Stream on = nullptr) const {
    const auto values = read(from ? from : y, on ? on : stream);
    for (int i = 0; i < SIZE; ++i)
      if (!(values[i] == expected(i))) return false;
    return true;
  }
  bool mirrored() const { return holds([&](int i) { return input[SIZE - 1 - i]; }); }
  bool copied() const { return holds([&](int i) { return input[i]; }); }
};

// One block of `threads` on the lab's stream.
#define RUN(kernel, threads, ...) MINIALEX_LAUNCH(kernel, 1, threads, 0, lab.stream, __VA_ARGS__)

}  // namespace minialex::zoo
