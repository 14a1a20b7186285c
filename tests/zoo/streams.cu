// Mistakes with devices, streams, events and host memory.
#include <cstring>
#include "zoo.h"

namespace minialex::zoo {
namespace {

__global__ void producer(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] + 1.f; }
__global__ void consumer(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] + 1.f; }
__global__ void reads_through_a_table(const float* const* table, float* y) {
  y[threadIdx.x] = table[0][threadIdx.x];
}

// A copy of the lab's x on device 1; `table`, on device 0, holds its address.
struct Other {
  float* x;
  Stream stream;
  const float** table;
  explicit Other(const Lab& lab) {
    runtime::set_device(1);
    stream = runtime::stream_create();
    x = device_array();
    runtime::copy(x, lab.input.data(), SIZE * sizeof(float), stream);
    runtime::stream_synchronize(stream);
    runtime::set_device(0);
    table = reinterpret_cast<const float**>(device_array());
    runtime::copy(table, &x, sizeof x, lab.stream);
  }
};

BUG(argument_on_another_device) {
  Lab lab;
  Other other(lab);
  RUN(producer, SIZE, other.x, lab.y);             // @argument_on_another_device
  return lab.holds([&](int i) { return lab.input[i] + 1.f; });
}

BUG(table_to_another_device) {
  Lab lab;
  Other other(lab);
  RUN(reads_through_a_table, SIZE, other.table, lab.y);
  return lab.copied();
}

CORRECT(table_to_another_device_with_peer_access) {
  Lab lab;
  Other other(lab);
  runtime::enable_peer(1);
  RUN(reads_through_a_table, SIZE, other.table, lab.y);
  return lab.copied();
}

BUG(host_reads_device_memory) {
  Lab lab;
  return *static_cast<volatile float*>(lab.x + 3) == 4.f;
}

BUG(freed_memory_as_argument) {
  Lab lab;
  float* gone = device_array();
  runtime::fill(gone, 0, SIZE * sizeof(float), lab.stream);
  runtime::release(gone);
  RUN(producer, SIZE, gone, lab.y);                // @freed_memory_as_argument
  return lab.holds([](int) { return 1.f; });
}

BUG(freed_memory_in_a_table) {
  Lab lab;
  float* gone = device_array();
  runtime::fill(gone, 0, SIZE * sizeof(float), lab.stream);
  auto** table = reinterpret_cast<const float**>(device_array());
  runtime::copy(table, &gone, sizeof gone, lab.stream);
  runtime::release(gone);
  RUN(reads_through_a_table, SIZE, table, lab.y);
  return lab.holds([](int) { return 0.f; });
}

struct Pair {                                      // a second stream on device 0, and an event
  Stream second = runtime::stream_create();
  Event event = runtime::event_create();
};
// Whatever is still to be done is done in the end: a checker may find only then that it came too late.
bool added(const Lab& lab, float much, const float* z, Stream stream) {
  const bool right = lab.holds([&](int i) { return lab.input[i] + much; }, z, stream);
  runtime::stream_synchronize(lab.stream);
  return right;
}

BUG(no_event_between_streams) {
  Lab lab;
  Pair pair;
  float* z = device_array();
  RUN(producer, SIZE, lab.x, lab.y);
  MINIALEX_LAUNCH(consumer, 1, SIZE, 0, pair.second, lab.y, z);
  return added(lab, 2.f, z, pair.second);
}

BUG(event_recorded_too_early) {
  Lab lab;
  Pair pair;
  float* z = device_array();
  runtime::event_record(pair.event, lab.stream);
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::stream_wait(pair.second, pair.event);
  MINIALEX_LAUNCH(consumer, 1, SIZE, 0, pair.second, lab.y, z);
  return added(lab, 2.f, z, pair.second);
}

BUG(event_never_recorded) {
  Lab lab;
  Pair pair;
  float* z = device_array();
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::stream_wait(pair.second, pair.event);
  MINIALEX_LAUNCH(consumer, 1, SIZE, 0, pair.second, lab.y, z);
  return added(lab, 2.f, z, pair.second);
}

CORRECT(event_between_streams) {
  Lab lab;
  Pair pair;
  float* z = device_array();
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::event_record(pair.event, lab.stream);
  runtime::stream_wait(pair.second, pair.event);
  MINIALEX_LAUNCH(consumer, 1, SIZE, 0, pair.second, lab.y, z);
  return added(lab, 2.f, z, pair.second);
}

// The next step's data overwrite x while the other stream's kernel may still read it.
BUG(buffer_reused_too_early) {
  Lab lab;
  Pair pair;
  MINIALEX_LAUNCH(consumer, 1, SIZE, 0, pair.second, lab.x, lab.y);
  runtime::fill(lab.x, 0, SIZE * sizeof(float), lab.stream);
  runtime::stream_synchronize(lab.stream);
  return lab.holds([&](int i) { return lab.input[i] + 1.f; }, lab.y, pair.second);
}

BUG(two_streams_write_one_buffer) {
  Lab lab;
  Pair pair;
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::fill(lab.y, 0, SIZE * sizeof(float), pair.second);
  runtime::stream_synchronize(lab.stream);
  runtime::stream_synchronize(pair.second);
  return lab.holds([](int) { return 0.f; });
}

BUG(peer_copy_before_its_producer) {
  Lab lab;
  Other other(lab);
  runtime::stream_synchronize(lab.stream);
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::copy_peer(other.x, 1, lab.y, 0, SIZE * sizeof(float), other.stream);
  return added(lab, 1.f, other.x, other.stream);
}

CORRECT(peer_copy_behind_its_producer) {
  Lab lab;
  Other other(lab);
  Event ready = runtime::event_create();
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::event_record(ready, lab.stream);
  runtime::stream_wait(other.stream, ready);
  runtime::copy_peer(other.x, 1, lab.y, 0, SIZE * sizeof(float), other.stream);
  return added(lab, 1.f, other.x, other.stream);
}

struct Pinned {
  float* values = static_cast<float*>(runtime::allocate_pinned(SIZE * sizeof(float)));
  explicit Pinned(const Lab& lab) { std::memcpy(values, lab.input.data(), SIZE * sizeof(float)); }
  ~Pinned() { runtime::release_pinned(values); }
};

BUG(pinned_source_changed_too_early) {
  Lab lab;
  Pinned pinned(lab);
  runtime::copy(lab.y, pinned.values, SIZE * sizeof(float), lab.stream);
  pinned.values[5] = -1.f;
  return lab.copied();
}

BUG(pinned_result_read_too_early) {
  Lab lab;
  Pinned pinned(lab);
  RUN(producer, SIZE, lab.x, lab.y);
  runtime::copy(pinned.values, lab.y, SIZE * sizeof(float), lab.stream);
  return pinned.values[5] == lab.input[5] + 1.f;
}

CORRECT(pinned_memory_both_ways) {
  Lab lab;
  Pinned pinned(lab);
  runtime::copy(lab.y, pinned.values, SIZE * sizeof(float), lab.stream);
  runtime::stream_synchronize(lab.stream);
  pinned.values[5] = -1.f;
  RUN(producer, SIZE, lab.y, lab.x);
  runtime::copy(pinned.values, lab.x, SIZE * sizeof(float), lab.stream);
  runtime::stream_synchronize(lab.stream);
  return pinned.values[5] == lab.input[5] + 1.f;
}

}  // namespace
}  // namespace minialex::zoo
