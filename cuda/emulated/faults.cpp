// A kernel's bad access as an error with names.  The handler runs on a stack of its own and never returns to the kernel: it
// switches to the fiber that started the block, which throws.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include "block.h"
#include "devices.h"
#if defined(__linux__)
#include <ucontext.h>
#endif

namespace minialex::emulated {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction before[3];
volatile sig_atomic_t passed_on = 0;

const char* kind_of_access([[maybe_unused]] void* context) {
#if defined(__x86_64__) && defined(__linux__)
  return static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2 ? "write to" : "read from";
#else
  return "access to";
#endif
}

// Device memory as the window's owner sees it; no locks, since the handler may run at any place.
int window_of(const void* address) {
  for (const Device& device : devices())
    if (address >= device.window && address < device.window + device.window_bytes) return device.index;
  return -1;
}

// Not a kernel's: whoever handled the signal before us does, such as Python's faulthandler.
void pass_on(int number, siginfo_t* info, void* context) {
  int i = number == SIGSEGV ? 0 : number == SIGBUS ? 1 : 2;
  bool handles = (before[i].sa_flags & SA_SIGINFO) || (before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN);
  if (passed_on || !handles) {
    signal(number, SIG_DFL);                       // returns to the faulty instruction, which then ends the process
    return;
  }
  passed_on = 1;
  if (before[i].sa_flags & SA_SIGINFO) before[i].sa_sigaction(number, info, context);
  else before[i].sa_handler(number);
}

[[maybe_unused]] void handle(int number, siginfo_t* info, void* context) {
  void* address = info->si_addr;
  if (!current) {
    if (int device = number == SIGFPE ? -1 : window_of(address); device >= 0)
      std::fprintf(stderr, "minialex: the host itself touched memory of emulated device %d at %p; copy it to the host first\n", device,
                   address);
    return pass_on(number, info, context);
  }
  if (number == SIGFPE) fail("an integer was divided by zero");
  if (fiber_guards(*current->fiber, address)) fail("the thread's stack overflowed: its local arrays are too large");
  int device = window_of(address), own = current->block->device;
  if (device < 0) fail(kind_of_access(context), " ", address, ", which is not memory of a device: a wild or a null pointer");
  std::string problem = range_problem(address, 1, own);
  fail(problem.empty() ? text(address, " faulted") : problem, " (", kind_of_access(context), " it, device ", own, ")");
}

}  // namespace

void install_fault_handlers() {
  static thread_local bool has_stack = false;
  if (!has_stack) {
    stack_t old{}, own{};
    sigaltstack(nullptr, &old);
    constexpr size_t kBytes = 128 * 1024;
    if ((old.ss_flags & SS_DISABLE) || old.ss_size < kBytes) {
      own.ss_size = kBytes;
      own.ss_sp = std::malloc(kBytes);             // kept as long as the OS thread may fault
      sigaltstack(&own, nullptr);
    }
    has_stack = true;
  }
#if !defined(MINIALEX_ASAN)                        // which has better words for it
  struct sigaction ours {};
  ours.sa_sigaction = handle;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;      // it does not return, so nothing would unblock the signal
  for (int i = 0; i < 3; ++i) {
    struct sigaction found;
    sigaction(kSignals[i], &ours, &found);
    if (!(found.sa_flags & SA_SIGINFO) || found.sa_sigaction != handle) before[i] = found;     // somebody came after us
  }
#endif
}

}  // namespace minialex::emulated
