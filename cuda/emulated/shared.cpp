#include <sys/mman.h>
#include <algorithm>
#include "block.h"
#include "settings.h"
#if defined(MINIALEX_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace minialex::emulated {
namespace {
constexpr unsigned char kNotANumber = 0xFF, kCanary = 0xC5;
size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }
}  // namespace

SharedMemory::SharedMemory() {
  void* memory = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MINIALEX_CHECK(DeviceError, memory != MAP_FAILED, "the emulator found no memory for a block's shared memory");
  arena_ = static_cast<char*>(memory);
}

void SharedMemory::begin_block(size_t dynamic_bytes) {
  arrays_.clear();
  dynamic_bytes_ = dynamic_bytes;
  static_bytes_ = 0;
  used_ = kDynamicOffset + dynamic_bytes + kCanaryBytes;
  if (on_block_start) on_block_start(arena_, kArenaBytes);
#if defined(MINIALEX_ASAN)
  __asan_poison_memory_region(arena_, kArenaBytes);
#endif
  if (dynamic_bytes) open(kDynamicOffset, dynamic_bytes);
}

// Poison inside, canaries around.
void SharedMemory::open(size_t offset, size_t bytes) {
#if defined(MINIALEX_ASAN)
  __asan_unpoison_memory_region(arena_ + offset, bytes);
#else
  std::memset(arena_ + offset - kCanaryBytes, kCanary, kCanaryBytes);
  std::memset(arena_ + offset + bytes, kCanary, kCanaryBytes);
#endif
  std::memset(arena_ + offset, kNotANumber, bytes);
  note(arena_ + offset, bytes, Access::fresh);
}

void* SharedMemory::find_or_add(const void* tag, const char* name, size_t bytes, size_t alignment) {
  for (const Array& array : arrays_)
    if (array.tag == tag) return arena_ + array.offset;
  static_bytes_ += bytes;
  if (static_bytes_ > kMaxStaticShared)
    fail("shared array ", name, " makes ", static_bytes_, " bytes of static shared memory; a kernel has ", kMaxStaticShared,
         ", more only as dynamic shared memory");
  if (static_bytes_ + dynamic_bytes_ > settings().shared)
    fail("shared array ", name, " makes ", static_bytes_, " bytes of static and ", dynamic_bytes_,
         " of dynamic shared memory; a block has ", settings().shared);
  size_t offset = round_up(used_ + kCanaryBytes, std::max<size_t>(alignment, 16));
  used_ = offset + bytes + kCanaryBytes;
  arrays_.push_back({tag, name, offset, bytes});
  open(offset, bytes);
  return arena_ + offset;
}

bool SharedMemory::inside_array(const void* pointer, size_t bytes) const {
  if (!owns(pointer)) return false;
  size_t offset = static_cast<size_t>(static_cast<const char*>(pointer) - arena_);
  if (offset >= kDynamicOffset && offset + bytes <= kDynamicOffset + dynamic_bytes_) return true;
  for (const Array& array : arrays_)
    if (offset >= array.offset && offset + bytes <= array.offset + array.bytes) return true;
  return false;
}

bool SharedMemory::intact(size_t offset) const {
  static const std::string whole(kCanaryBytes, static_cast<char>(kCanary));
  return !std::memcmp(arena_ + offset, whole.data(), kCanaryBytes);
}

std::string SharedMemory::damage() const {
#if !defined(MINIALEX_ASAN)
  auto look = [&](const char* name, size_t offset, size_t bytes) -> std::string {
    if (!intact(offset + bytes)) return text("somebody wrote past the end of ", name, ", which has ", bytes, " bytes");
    if (!intact(offset - kCanaryBytes)) return text("somebody wrote before the start of ", name);
    return "";
  };
  for (const Array& array : arrays_)
    if (std::string found = look(text("shared array ", array.name).c_str(), array.offset, array.bytes); !found.empty()) return found;
  if (dynamic_bytes_) return look("dynamic shared memory", kDynamicOffset, dynamic_bytes_);
#endif
  return "";
}

void* static_shared(const void* tag, const char* name, size_t bytes, size_t alignment) {
  return running_block().shared.find_or_add(tag, name, bytes, alignment);
}

void* dynamic_shared(size_t bytes, Location location) {
  SharedMemory& shared = running_block().shared;
  if (bytes > shared.dynamic_bytes())
    fail("the kernel's dynamic shared memory at ", location, " takes ", bytes, " bytes, the launch gives ", shared.dynamic_bytes());
  return shared.dynamic();
}

bool inside_shared_array(const void* pointer, size_t bytes) { return running_block().shared.inside_array(pointer, bytes); }

}  // namespace minialex::emulated
