// The emulator's devices and their memories, and the runtime's inner calls.  Only runtime.cpp's functions are for users.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>
#include "emulated.h"

namespace minialex::emulated {

constexpr size_t kPage = 4096, kRedZone = 256;     // a red zone lies before and behind each allocation

// One memory, mapped twice: `window` holds the addresses programs see, `backing` is the copies' own door.
// The window of a device is closed (PROT_NONE) to kernels of a device that is no peer.  Settings::protect says when windows close:
//   0  never
//   1  when a kernel starts on a device that may not touch them.  Closing costs 14 ms for 256 MB of touched memory, so a window
//      stays open between kernels of one device and its peers: training pays nothing
//   2  also behind every kernel, so that the host's own access to device memory is caught.  For tests
// A window that was never used by a kernel is closed.
struct Device {
  int index;
  int file;
  char* window;
  char* backing;
  size_t extent = 0;                               // offsets below have been given out once
  size_t used = 0;                                 // bytes, of the memory that Settings::memory limits
  std::map<size_t, size_t> live;                   // offset -> bytes
  std::map<size_t, size_t> freed;                  // offset -> bytes, whole pages, neighbours joined
  std::set<int> peers;
  bool open = false;
  size_t window_bytes = 0;
};

class RuntimeGuard {                               // the runtime serves one OS thread at a time
 public:
  RuntimeGuard();                                  // DeviceError in a forked process, where CUDA would not work either
  ~RuntimeGuard();
};

std::vector<Device>& devices();                    // made at the first call
int owner_of(const void* pointer);                 // -1: no device's
char* backing_of(const void* pointer);             // the copies' door; the pointer itself for host memory
bool is_pinned(const void* pointer, size_t bytes);
void* allocate_on(int device, size_t bytes);
void release_on(int device, void* pointer);
void open_for_kernel(int device);
void after_kernel(int device);
void apply_protection();
std::string damaged_red_zone(int device);          // "" or whose; the zone is repaired
void check_arguments(const KernelLaunch& kernel, int device);      // DeviceError for pointers a kernel of the device may not have

void synchronize_all();
int current_device();

void install_fault_handlers();                     // faults.cpp; once for each OS thread that runs blocks, and cheap to repeat

}  // namespace minialex::emulated
