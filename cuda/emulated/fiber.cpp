#include "fiber.h"
#include <pthread.h>
#include <sys/mman.h>
#include <cstdint>
#include "minialex/check.h"
#if defined(MINIALEX_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(MINIALEX_PORTABLE_FIBERS)
// Saves what a function must preserve on the stack, exchanges the stack pointers, loads the same from the other stack.
extern "C" void minialex_switch_stacks(void** save_pointer, void* load_pointer);
#if defined(__x86_64__)
asm(R"(
.text
.globl minialex_switch_stacks
.hidden minialex_switch_stacks
.type minialex_switch_stacks, @function
minialex_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size minialex_switch_stacks, . - minialex_switch_stacks
)");
#else
asm(R"(
.text
.globl minialex_switch_stacks
.hidden minialex_switch_stacks
.type minialex_switch_stacks, %function
minialex_switch_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size minialex_switch_stacks, . - minialex_switch_stacks
)");
#endif
#endif

namespace minialex::emulated {
namespace {
#if defined(MINIALEX_ASAN)
constexpr size_t kStackBytes = 512 * 1024;
#else
constexpr size_t kStackBytes = 128 * 1024;
#endif
constexpr size_t kGuardBytes = 1024 * 1024;        // a local array as large as this is caught; costs addresses, no memory
}  // namespace

Fiber* fiber_create(int number, void (*entry)()) {
  void* space = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MINIALEX_CHECK(DeviceError, space != MAP_FAILED && !mprotect(space, kGuardBytes, PROT_NONE),
                 "the emulator found no address space for the stack of a CUDA thread: raise the limits of memory and of mappings");
  auto* memory = static_cast<char*>(space);
  auto* fiber = new Fiber;
  fiber->lowest = memory;
  // Tops at the same distance from a page would share one set of the first-level cache: spread, a switch is twice as fast.
  fiber->top = memory + kGuardBytes + kStackBytes - (static_cast<size_t>(number) * 832 % 16384 & ~size_t(63));
  fiber->entry = entry;
  fiber_restart(*fiber);
  return fiber;
}

bool fiber_guards(const Fiber& fiber, const void* address) {
  auto* at = static_cast<const char*>(address);
  return fiber.lowest && at >= fiber.lowest && at < fiber.lowest + kGuardBytes;
}

void fiber_restart(Fiber& fiber) {
#if defined(MINIALEX_ASAN)
  __asan_unpoison_memory_region(fiber.lowest + kGuardBytes, kStackBytes);
  fiber.shadow_stack = nullptr;
#endif
#if defined(MINIALEX_PORTABLE_FIBERS)
  getcontext(&fiber.context);
  fiber.context.uc_link = nullptr;
  fiber.context.uc_stack.ss_sp = fiber.lowest + kGuardBytes;
  fiber.context.uc_stack.ss_size = static_cast<size_t>(fiber.top - (fiber.lowest + kGuardBytes));
  makecontext(&fiber.context, fiber.entry, 0);
#elif defined(__x86_64__)
  auto** word = reinterpret_cast<void**>(fiber.top);
  *--word = nullptr;                               // as if entry had been called: the stack is 8 bytes off a multiple of 16
  *--word = reinterpret_cast<void*>(fiber.entry);
  for (int i = 0; i < 6; ++i) *--word = nullptr;
  fiber.stack_pointer = word;
#else
  auto** word = reinterpret_cast<void**>(fiber.top - 160);
  for (int i = 0; i < 20; ++i) word[i] = nullptr;
  word[11] = reinterpret_cast<void*>(fiber.entry); // x30, where `ret` goes
  fiber.stack_pointer = word;
#endif
}

void fiber_entered() {
#if defined(MINIALEX_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void fiber_from_os_thread([[maybe_unused]] Fiber& fiber) {
#if defined(MINIALEX_ASAN)
  pthread_attr_t attributes;
  void* lowest;
  size_t bytes;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &lowest, &bytes);
  pthread_attr_destroy(&attributes);
  fiber.lowest = static_cast<char*>(lowest) - kGuardBytes;
  fiber.top = static_cast<char*>(lowest) + bytes;
#endif
}

void fiber_switch(Fiber& from, Fiber& to) {
#if defined(MINIALEX_ASAN)
  __sanitizer_start_switch_fiber(&from.shadow_stack, to.lowest + kGuardBytes, static_cast<size_t>(to.top - (to.lowest + kGuardBytes)));
#endif
#if defined(MINIALEX_PORTABLE_FIBERS)
  swapcontext(&from.context, &to.context);
#else
  minialex_switch_stacks(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(MINIALEX_ASAN)
  __sanitizer_finish_switch_fiber(from.shadow_stack, nullptr, nullptr);
#endif
}

}  // namespace minialex::emulated
