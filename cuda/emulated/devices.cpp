#include "devices.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include "settings.h"

namespace minialex::emulated {
namespace {

std::recursive_mutex runtime_lock;
bool forked = false;
constexpr size_t kFourGiB = size_t(1) << 32;

size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
size_t first_page(size_t offset) { return offset / kPage * kPage; }

// A kernel argument is searched for addresses word by word.  Two neighbouring ints, the lower of them positive, are no address
// of a window that starts 2 GiB behind a multiple of 4 GiB.
Device add_device(int index) {
  Device device;
  device.index = index;
  device.window_bytes = std::max(2 * settings().memory, size_t(1) << 30);
  device.file = memfd_create("minialex-device", MFD_CLOEXEC);
  MINIALEX_CHECK(DeviceError, device.file >= 0 && !ftruncate(device.file, static_cast<off_t>(device.window_bytes)),
                 "the emulator cannot make the memory of device ", index, ": ", std::strerror(errno));
  void* backing = mmap(nullptr, device.window_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, device.file, 0);
  void* space = mmap(nullptr, device.window_bytes + kFourGiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  auto address = (reinterpret_cast<uintptr_t>(space) + kFourGiB / 2 - 1) / kFourGiB * kFourGiB + kFourGiB / 2;
  if (address < reinterpret_cast<uintptr_t>(space)) address += kFourGiB;
  void* window = MAP_FAILED;
  if (space != MAP_FAILED)
    window = mmap(reinterpret_cast<void*>(address), device.window_bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, device.file, 0);
  MINIALEX_CHECK(DeviceError, backing != MAP_FAILED && window != MAP_FAILED, "the emulator found no address space for device ", index,
                 " (", device.window_bytes >> 20, " MiB twice): lower MINIALEX_EMULATED_MEMORY or raise the limit of virtual memory");
  device.backing = static_cast<char*>(backing);
  device.window = static_cast<char*>(window);
  if (on_device_added) on_device_added(index, device.window, device.window_bytes);
  return device;
}

// The allocation that starts at or before `offset`, or nullptr.
const std::pair<const size_t, size_t>* allocation_before(const Device& device, size_t offset) {
  auto next = device.live.upper_bound(offset);
  return next == device.live.begin() ? nullptr : &*std::prev(next);
}

bool was_freed(const Device& device, size_t offset) {
  auto next = device.freed.upper_bound(offset);
  return next != device.freed.begin() && offset < std::prev(next)->first + std::prev(next)->second;
}

void add_freed(Device& device, size_t offset, size_t bytes) {
  auto next = device.freed.lower_bound(offset);
  if (next != device.freed.end() && offset + bytes == next->first) {
    bytes += next->second;
    next = device.freed.erase(next);
  }
  if (next != device.freed.begin() && std::prev(next)->first + std::prev(next)->second == offset) std::prev(next)->second += bytes;
  else device.freed[offset] = bytes;
}

void protect(char* memory, size_t bytes, bool open) {
  if (!bytes) return;
  MINIALEX_CHECK(DeviceError, !mprotect(memory, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE),
                 "the emulator cannot protect device memory: ", std::strerror(errno));
}

void set_window(Device& device, bool open) {
  if (device.open == open) return;
  protect(device.window, device.extent, open);
  device.open = open;
  if (open && settings().protect)
    for (auto& [offset, bytes] : device.freed) protect(device.window + offset, bytes, false);
}

}  // namespace

RuntimeGuard::RuntimeGuard() {
  runtime_lock.lock();
  if (!forked) return;
  runtime_lock.unlock();
  throw DeviceError("emulated devices cannot be used in a forked process, as CUDA's cannot: start processes by spawn");
}
RuntimeGuard::~RuntimeGuard() { runtime_lock.unlock(); }

std::vector<Device>& devices() {
  static auto& all = *new std::vector<Device>;
  static bool made = false;
  if (!made) {
    std::vector<Device> fresh;
    for (int i = 0; i < settings().devices; ++i) fresh.push_back(add_device(i));
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    all = std::move(fresh);
    made = true;
    install_fault_handlers();
    apply_protection();
  }
  return all;
}

int owner_of(const void* pointer) {
  for (const Device& device : devices())
    if (pointer >= device.window && pointer < device.window + device.window_bytes) return device.index;
  return -1;
}

char* backing_of(const void* pointer) {
  int owner = owner_of(pointer);
  auto* address = static_cast<char*>(const_cast<void*>(pointer));
  return owner < 0 ? address : devices()[owner].backing + (address - devices()[owner].window);
}

void* allocate_on(int index, size_t bytes) {
  Device& device = devices()[index];
  size_t limit = settings().memory, whole = pages(std::max<size_t>(bytes, 1) + 2 * kRedZone);
  MINIALEX_CHECK(DeviceMemoryError, bytes <= limit - device.used, "emulated device ", index, " has not enough memory: ", bytes,
                 " bytes asked, ", limit - device.used, " free of ", limit, "; use a smaller batch, or raise MINIALEX_EMULATED_MEMORY");
  size_t page = device.extent;
  if (page + whole <= device.window_bytes) {
    if (device.open) protect(device.window + page, whole, true);
    device.extent += whole;
  } else {                                         // all addresses were used once: take them from what was freed
    auto hole = std::find_if(device.freed.begin(), device.freed.end(), [&](auto& range) { return range.second >= whole; });
    MINIALEX_CHECK(DeviceMemoryError, hole != device.freed.end(), "emulated device ", index, " has no piece of ", bytes,
                   " bytes left, its memory is in fragments: ", limit - device.used, " bytes are free of ", limit);
    page = hole->first;
    if (hole->second > whole) device.freed[page + whole] = hole->second - whole;
    device.freed.erase(page);
    if (device.open) protect(device.window + page, whole, true);
  }
  device.used += bytes;
  device.live[page + kRedZone] = bytes;
  std::memset(device.backing + page, 0xFF, kRedZone);
  std::memset(device.backing + page + kRedZone, 0xFF, std::min(bytes, size_t(1) << 30));     // NaNs; what lies further takes no memory yet
  std::memset(device.backing + page + kRedZone + bytes, 0xFF, kRedZone);
  note(device.window + page + kRedZone, bytes, Access::fresh);
  return device.window + page + kRedZone;
}

void release_on(int index, void* pointer) {
  Device& device = devices()[index];
  size_t offset = static_cast<size_t>(static_cast<char*>(pointer) - device.window);
  auto found = device.live.find(offset);
  MINIALEX_CHECK(DeviceError, found != device.live.end(), "release: ", pointer,
                 was_freed(device, offset) ? " was released before" : " is not where an allocation starts", " on device ", index);
  size_t page = first_page(offset), whole = pages(std::max<size_t>(found->second, 1) + 2 * kRedZone);
  note(pointer, found->second, Access::gone);
  device.used -= found->second;
  device.live.erase(found);
  add_freed(device, page, whole);
  [[maybe_unused]] int given_back = fallocate(device.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(page),
                                              static_cast<off_t>(whole));      // where it cannot be, the memory stays taken
  if (device.open && settings().protect) protect(device.window + page, whole, false);
}

std::string range_problem(const void* pointer, size_t bytes, int index) {
  int owner = owner_of(pointer);
  if (owner < 0) return text(pointer, " is not device memory");
  const Device& device = devices()[owner];
  if (index >= 0 && owner != index && !devices()[index].peers.count(owner))
    return text(pointer, " is memory of device ", owner, ", which device ", index, " may not touch: peer access is not enabled");
  size_t offset = static_cast<size_t>(static_cast<const char*>(pointer) - device.window);
  auto* nearest = allocation_before(device, offset);
  if (nearest && offset + bytes <= nearest->first + nearest->second) return "";
  if (was_freed(device, offset)) return text(pointer, " is freed memory of device ", owner);
  if (!nearest) return text(pointer, " lies before the first allocation of device ", owner);
  return text(bytes, " bytes at ", pointer, " go past the end of an allocation of ", nearest->second, " bytes, where they start at byte ",
              offset - nearest->first, " (device ", owner, ")");
}

void open_for_kernel(int index) {
  if (!settings().protect) return;
  Device& own = devices()[index];
  for (Device& device : devices()) set_window(device, device.index == index || own.peers.count(device.index));
}

void after_kernel(int) {
  if (settings().protect < 2) return;
  for (Device& device : devices()) set_window(device, false);
}

void apply_protection() {
  for (Device& device : devices()) {
    device.open = settings().protect != 0;         // so that set_window acts
    set_window(device, settings().protect == 0);
  }
}

std::string damaged_red_zone(int index) {
  for (Device& device : devices()) {
    if (device.index != index && !devices()[index].peers.count(device.index)) continue;
    for (auto& [offset, bytes] : device.live) {
      static const std::string intact(kRedZone, '\xFF');
      char *before = device.backing + offset - kRedZone, *behind = device.backing + offset + bytes;
      bool early = std::memcmp(before, intact.data(), kRedZone), late = std::memcmp(behind, intact.data(), kRedZone);
      if (!early && !late) continue;
      std::memset(before, 0xFF, kRedZone);
      std::memset(behind, 0xFF, kRedZone);
      return text("a thread wrote ", late ? "past the end" : "before the start", " of an allocation of ", bytes, " bytes on device ",
                  device.index);
    }
  }
  return "";
}

}  // namespace minialex::emulated
