// minialex/runtime.h on make-believe devices, with CUDA's rules and messages that say more.
#include "minialex/runtime.h"
#include <algorithm>
#include <cstdlib>
#include "block.h"
#include "devices.h"
#include "streams.h"

namespace minialex::emulated {
namespace {

thread_local int device_of_thread = 0;
auto& pinned = *new std::map<const char*, size_t>; // start -> bytes; never destroyed, since arrays may live longer

void check_device(int device, const char* what) {
  MINIALEX_CHECK(DeviceError, device >= 0 && device < runtime::device_count(), what, ": there is no device ", device, ", only ",
                 runtime::device_count(), " emulated ones (MINIALEX_EMULATED_DEVICES)");
}

// Device memory must be alive from start to end; anything else is taken for host memory.
void check_range(const void* pointer, size_t bytes, const char* what) {
  if (owner_of(pointer) < 0) return;
  std::string problem = range_problem(pointer, bytes, -1);
  MINIALEX_CHECK(DeviceError, problem.empty(), what, ": ", problem);
}

void check_launch(const KernelLaunch& kernel) {
  auto [gx, gy, gz] = std::make_tuple(kernel.grid.x, kernel.grid.y, kernel.grid.z);
  auto [bx, by, bz] = std::make_tuple(kernel.block.x, kernel.block.y, kernel.block.z);
  std::string start = text("kernel ", kernel.name, " (launched at ", kernel.location, "): ");
  bool block_fits = bx && by && bz && bx <= kMaxThreads && by <= kMaxThreads && bz <= 64 && uint64_t(bx) * by * bz <= kMaxThreads;
  MINIALEX_CHECK(DeviceError, block_fits, start, "a block of (", bx, ",", by, ",", bz,
                 ") threads; CUDA runs 1 to 1024, at most 64 of them in z");
  MINIALEX_CHECK(DeviceError, gx && gy && gz && gx <= 0x7FFFFFFFu && gy <= 65535 && gz <= 65535, start, "a grid of (", gx, ",", gy, ",", gz,
                 ") blocks; CUDA runs 1 to 2147483647 in x and 1 to 65535 in y and z");
  MINIALEX_CHECK(DeviceError, kernel.shared_bytes <= settings().shared, start, kernel.shared_bytes,
                 " bytes of dynamic shared memory; a block has ", settings().shared);
}

// The name of the copy in messages of the checker.
const char* copy_name(int to, int from) {
  return to < 0 ? "copy to the host" : from < 0 ? "copy from the host" : to == from ? "copy on a device" : "copy between devices";
}

Operation copy_operation(void* to, const void* from, size_t bytes) {
  Operation operation;
  operation.name = copy_name(owner_of(to), owner_of(from));
  operation.run = [=] {
    check_range(to, bytes, "copy, destination");   // it may have been freed since
    check_range(from, bytes, "copy, source");
    note(from, bytes, Access::copy_read);
    std::memmove(backing_of(to), backing_of(from), bytes);
    note(to, bytes, Access::copy_write);
  };
  return operation;
}

}  // namespace

int current_device() { return device_of_thread; }

bool is_pinned(const void* pointer, size_t bytes) {
  auto* address = static_cast<const char*>(pointer);
  auto next = pinned.upper_bound(address);
  return next != pinned.begin() && address + bytes <= std::prev(next)->first + std::prev(next)->second;
}

// Arguments that are pointers must be memory the device may touch; words inside structs count where they point into a device.
void check_arguments(const KernelLaunch& kernel, int device) {
  auto problem = [&](const void* pointer) -> std::string {
    if (!pointer || (owner_of(pointer) < 0 && is_pinned(pointer, 0))) return "";
    if (owner_of(pointer) < 0) return text(pointer, " is pageable host memory");
    return range_problem(pointer, 0, device);
  };
  std::string start = text("kernel ", kernel.name, " (launched at ", kernel.location, "), ");
  for (int i = 0; i < kernel.argument_count; ++i) {
    std::string found = problem(kernel.pointers[i]);
    MINIALEX_CHECK(DeviceError, found.empty(), start, "argument ", i + 1, " of ", kernel.argument_count, ": ", found);
  }
  auto* bytes = static_cast<const char*>(kernel.arguments.get());
  for (size_t at = 0; at + sizeof(void*) <= kernel.argument_bytes; at += sizeof(void*)) {
    const void* word;
    std::memcpy(&word, bytes + at, sizeof word);
    int owner = owner_of(word);
    // Addresses never given out are no pointers but two neighbouring ints, or padding, that happen to look like one.
    if (owner < 0 || word >= devices()[owner].window + devices()[owner].extent) continue;
    std::string found = problem(word);
    MINIALEX_CHECK(DeviceError, found.empty(), start, "a pointer in its arguments: ", found);
  }
}

void enqueue(KernelLaunch&& kernel, Stream stream) {
  RuntimeGuard guard;
  auto& queue = known(stream, kernel.name);
  check_launch(kernel);
  MINIALEX_CHECK(DeviceError, queue->device == current_device(), "kernel ", kernel.name, ": its stream belongs to device ", queue->device,
                 ", but device ", current_device(), " is current; call set_device first");
  int device = queue->device;
  check_arguments(kernel, device);
  Operation operation;
  if (note_access) operation.name = text("kernel ", kernel.name);
  if (queue->capture) {
    const auto [g, b] = std::make_pair(kernel.grid, kernel.block);
    auto* bytes = static_cast<const char*>(kernel.arguments.get());
    queue->capture->kernels.push_back({kernel.name, text("(", g.x, ",", g.y, ",", g.z, ") x (", b.x, ",", b.y, ",", b.z, "), ",
                                                         kernel.shared_bytes, " bytes shared"), std::string(bytes, kernel.argument_bytes)});
  }
  operation.run = [kernel = std::move(kernel), device, later = settings().streams != Streams::now || queue->capture] {
    if (later) check_arguments(kernel, device);    // they may have been freed since
    open_for_kernel(device);
    try {
      run_kernel(kernel, device, current_operation());
    } catch (...) {
      after_kernel(device);
      damaged_red_zone(device);                    // repaired; the first error is the one to report
      throw;
    }
    after_kernel(device);
    std::string damage = damaged_red_zone(device);
    MINIALEX_CHECK(DeviceError, damage.empty(), "kernel ", kernel.name, " (launched at ", kernel.location, "): ", damage);
  };
  push(queue, std::move(operation));
}

}  // namespace minialex::emulated

namespace minialex::runtime {
using namespace minialex::emulated;

std::string unavailable_reason() {
  try {
    return settings().devices ? "" : "MINIALEX_EMULATED_DEVICES is 0: set it to the number of devices to make believe";
  } catch (const DeviceError& error) {             // a word of the environment that is no setting
    return error.what();
  }
}
int device_count() { return unavailable_reason().empty() ? settings().devices : 0; }
std::string describe(int device) {
  check_device(device, "describe");
  return text("emulated device ", device, ", ", settings().memory >> 20, " MiB, compute capability 9.0, its threads run by the host");
}
size_t shared_per_block(int device) {
  check_device(device, "shared_per_block");
  return settings().shared;
}
void set_device(int device) {
  check_device(device, "set_device");
  device_of_thread = device;
}
int get_device() { return device_of_thread; }
int device_of(const void* pointer) {
  RuntimeGuard guard;
  return owner_of(pointer);
}
void memory_info(size_t* free_bytes, size_t* total_bytes) {
  RuntimeGuard guard;
  check_device(current_device(), "memory_info");
  *total_bytes = settings().memory;
  *free_bytes = settings().memory - devices()[current_device()].used;
}
bool can_access_peer(int device, int peer) {
  check_device(device, "can_access_peer");
  check_device(peer, "can_access_peer");
  return device != peer && settings().peers;
}
void enable_peer(int peer) {
  RuntimeGuard guard;
  MINIALEX_CHECK(DeviceError, can_access_peer(current_device(), peer), "enable_peer: device ", current_device(),
                 " cannot touch the memory of device ", peer);
  devices()[current_device()].peers.insert(peer);
}

void* allocate(size_t bytes) {
  RuntimeGuard guard;
  refuse_while_capturing("allocate");
  check_device(current_device(), "allocate");
  return allocate_on(current_device(), bytes);
}
void release(void* pointer) {
  if (!pointer) return;
  RuntimeGuard guard;
  int owner = owner_of(pointer);
  MINIALEX_CHECK(DeviceError, owner >= 0, "release: ", pointer, " is not device memory");
  synchronize_device(owner);                       // as cudaFree
  release_on(owner, pointer);
}
void* allocate_pinned(size_t bytes) {
  RuntimeGuard guard;
  refuse_while_capturing("allocate_pinned");
  auto* memory = static_cast<char*>(std::aligned_alloc(256, (std::max<size_t>(bytes, 1) + 255) / 256 * 256));
  MINIALEX_CHECK(DeviceMemoryError, memory, "the host has no ", bytes, " bytes of pinned memory left");
  std::memset(memory, 0xFF, bytes);
  pinned[memory] = bytes;
  return memory;
}
void release_pinned(void* pointer) {
  if (!pointer) return;
  RuntimeGuard guard;
  synchronize_all();                               // as cudaFreeHost
  MINIALEX_CHECK(DeviceError, pinned.erase(static_cast<char*>(pointer)), "release_pinned: ", pointer,
                 " is not where a pinned allocation starts");
  std::free(pointer);
}

Stream stream_create(bool) {
  RuntimeGuard guard;
  check_device(current_device(), "stream_create");
  return add_stream(current_device());
}
void stream_destroy(Stream stream) {
  RuntimeGuard guard;
  auto kept = known(stream, "stream_destroy");
  remove_stream(stream);
  synchronize(kept);
}
void stream_synchronize(Stream stream) {
  RuntimeGuard guard;
  synchronize(known(stream, "stream_synchronize"));
}
void device_synchronize() {
  RuntimeGuard guard;
  refuse_while_capturing("device_synchronize");
  synchronize_device(current_device());
}
Event event_create() {
  RuntimeGuard guard;
  check_device(current_device(), "event_create");
  return add_event(current_device());
}
void event_destroy(Event event) {
  RuntimeGuard guard;
  known(event, "event_destroy");
  remove_event(event);
}
void event_record(Event event, Stream stream) {
  RuntimeGuard guard;
  auto& queue = known(stream, "event_record");
  auto& state = known(event, "event_record");
  MINIALEX_CHECK(DeviceError, state.device == queue->device, "event_record: the event belongs to device ", state.device,
                 ", the stream to device ", queue->device);
  record(state, queue);
}
void stream_wait(Stream stream, Event event) {
  RuntimeGuard guard;
  wait_for(known(stream, "stream_wait"), known(event, "stream_wait"));
}
void event_synchronize(Event event) {
  RuntimeGuard guard;
  synchronize(known(event, "event_synchronize"));
}

void copy(void* to, const void* from, size_t bytes, Stream stream) {
  RuntimeGuard guard;
  auto& queue = known(stream, "copy");
  if (!bytes) return;
  const bool pageable = (owner_of(to) < 0 && !is_pinned(to, bytes)) || (owner_of(from) < 0 && !is_pinned(from, bytes));
  MINIALEX_CHECK(DeviceError, !queue->capture || !pageable, "copy: with pageable host memory in a graph, ",
                 "which would be looked at again at each launch; copy before the capture");
  check_range(to, bytes, "copy, destination");
  check_range(from, bytes, "copy, source");
  int to_device = owner_of(to), from_device = owner_of(from);
  MINIALEX_CHECK(DeviceError, to_device < 0 || from_device < 0 || to_device == from_device, "copy: from device ", from_device,
                 " to device ", to_device, "; use copy_peer");
  Operation operation = copy_operation(to, from, bytes);
  if (from_device < 0 && !is_pinned(from, bytes)) {           // as CUDA: pageable memory may change when the call returns
    auto* start = static_cast<const char*>(from);
    auto snapshot = std::make_shared<std::vector<char>>(start, start + bytes);
    operation.run = [=] {
      check_range(to, bytes, "copy, destination");
      std::memcpy(backing_of(to), snapshot->data(), bytes);
      note(to, bytes, Access::copy_write);
    };
  }
  push(queue, std::move(operation));
  if (to_device < 0 && !is_pinned(to, bytes)) synchronize(queue);
}
void copy_peer(void* to, int to_device, const void* from, int from_device, size_t bytes, Stream stream) {
  RuntimeGuard guard;
  auto& queue = known(stream, "copy_peer");
  check_device(to_device, "copy_peer");
  check_device(from_device, "copy_peer");
  if (!bytes) return;
  MINIALEX_CHECK(DeviceError, owner_of(to) == to_device, "copy_peer: the destination ", to, " is not memory of device ", to_device);
  MINIALEX_CHECK(DeviceError, owner_of(from) == from_device, "copy_peer: the source ", from, " is not memory of device ", from_device);
  check_range(to, bytes, "copy_peer, destination");
  check_range(from, bytes, "copy_peer, source");
  push(queue, copy_operation(to, from, bytes));
}
void fill(void* pointer, int byte, size_t bytes, Stream stream) {
  RuntimeGuard guard;
  auto& queue = known(stream, "fill");
  if (!bytes) return;
  MINIALEX_CHECK(DeviceError, owner_of(pointer) >= 0, "fill: ", pointer, " is not device memory");
  check_range(pointer, bytes, "fill");
  Operation operation;
  operation.name = "fill";
  operation.run = [=] {
    check_range(pointer, bytes, "fill");
    std::memset(backing_of(pointer), byte, bytes);
    note(pointer, bytes, Access::copy_write);
  };
  push(queue, std::move(operation));
}

}  // namespace minialex::runtime
