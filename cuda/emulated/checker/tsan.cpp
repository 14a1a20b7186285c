// What a compiler calls before each load and store under -fsanitize=thread, and in place of atomic operations.
#include <cstring>
#include "shadow.h"

using minialex::emulated::Access;
using minialex::emulated::checker::check;
using minialex::emulated::checker::check_typed;
using minialex::emulated::checker::site_of;

#define SITE site_of(__builtin_return_address(0))
#define BYTES(pointer) reinterpret_cast<const char*>(pointer)
#define ACCESSES(size)                                                                                                    \
  void __tsan_read##size(void* p) { check_typed(BYTES(p), size, Access::read, SITE); }                                   \
  void __tsan_write##size(void* p) { check_typed(BYTES(p), size, Access::write, SITE); }                                 \
  void __tsan_unaligned_read##size(void* p) { check(BYTES(p), size, Access::read, SITE); }                               \
  void __tsan_unaligned_write##size(void* p) { check(BYTES(p), size, Access::write, SITE); }                             \
  void __tsan_volatile_read##size(void* p) { check_typed(BYTES(p), size, Access::read, SITE); }                          \
  void __tsan_volatile_write##size(void* p) { check_typed(BYTES(p), size, Access::write, SITE); }                        \
  void __tsan_read_write##size(void* p) {                                                                                \
    check_typed(BYTES(p), size, Access::read, SITE);                                                                     \
    check(BYTES(p), size, Access::write, SITE);                                                                          \
  }                                                                                                                      \
  void __tsan_unaligned_read_write##size(void* p) {                                                                      \
    check(BYTES(p), size, Access::read, SITE);                                                                           \
    check(BYTES(p), size, Access::write, SITE);                                                                          \
  }
// Kernels do not use these: CUDA's atomics tell the checker themselves.  The launchers' shared pointers and static objects do.
#define ATOMICS(bits, Type)                                                                                              \
  Type __tsan_atomic##bits##_load(const volatile Type* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }          \
  void __tsan_atomic##bits##_store(volatile Type* p, Type v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }          \
  Type __tsan_atomic##bits##_exchange(volatile Type* p, Type v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); } \
  Type __tsan_atomic##bits##_fetch_add(volatile Type* p, Type v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); } \
  Type __tsan_atomic##bits##_fetch_sub(volatile Type* p, Type v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile Type* p, Type* expected, Type v, int, int) {                \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                       \
  }                                                                                                                      \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile Type* p, Type* expected, Type v, int, int) {                  \
    return __atomic_compare_exchange_n(p, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                        \
  }                                                                                                                      \
  Type __tsan_atomic##bits##_compare_exchange_val(volatile Type* p, Type expected, Type v, int, int) {                   \
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                             \
    return expected;                                                                                                     \
  }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* p, unsigned long bytes) { check(BYTES(p), bytes, Access::read, SITE); }
void __tsan_write_range(void* p, unsigned long bytes) { check(BYTES(p), bytes, Access::write, SITE); }
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  check(BYTES(from), bytes, Access::read, SITE);
  check(BYTES(to), bytes, Access::write, SITE);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  check(BYTES(from), bytes, Access::read, SITE);
  check(BYTES(to), bytes, Access::write, SITE);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int byte, unsigned long bytes) {
  check(BYTES(to), bytes, Access::write, SITE);
  return std::memset(to, byte, bytes);
}
ATOMICS(8, char)
ATOMICS(16, short)
ATOMICS(32, int)
ATOMICS(64, long)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
