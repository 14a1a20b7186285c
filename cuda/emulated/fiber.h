// Fibers: stacks of their own on one OS thread.  A switch costs a few nanoseconds by hand-written assembly (x86-64, aarch64) and
// 0.3 us by ucontext, which serves every other machine and, with -DMINIALEX_PORTABLE_FIBERS, these.
#pragma once
#include <cstddef>
#if !defined(MINIALEX_PORTABLE_FIBERS) && !defined(__x86_64__) && !defined(__aarch64__)
#define MINIALEX_PORTABLE_FIBERS
#endif
#if defined(MINIALEX_PORTABLE_FIBERS)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MINIALEX_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MINIALEX_ASAN
#endif
#endif

namespace minialex::emulated {

struct Fiber {
  char* lowest = nullptr;                          // of the stack's memory: the guard page
  char* top = nullptr;
  void (*entry)() = nullptr;
#if defined(MINIALEX_PORTABLE_FIBERS)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
#if defined(MINIALEX_ASAN)
  void* shadow_stack = nullptr;
#endif
};

Fiber* fiber_create(int number, void (*entry)());  // `number` colours the stack; `entry` must not return
void fiber_entered();                              // the first thing `entry` calls
void fiber_restart(Fiber& fiber);                  // forgets what it was doing: the next switch to it calls entry
void fiber_from_os_thread(Fiber& fiber);           // before the first switch away from an OS thread's own stack
void fiber_switch(Fiber& from, Fiber& to);         // returns when something switches back to `from`
bool fiber_guards(const Fiber& fiber, const void* address);    // is the address in the page under the stack: an overflow

}  // namespace minialex::emulated
