// Places in the source.  Addresses are kept as offsets in the module that holds this code: the kernels are in the same one.
#include <dlfcn.h>
#include <cstdio>
#include <map>
#include "shadow.h"

namespace minialex::emulated::checker {
namespace {

constexpr Site kChain = 1u << 31;                  // the number of a chain of calls, not an offset
constexpr int kLongestChain = 6;
constexpr ptrdiff_t kLargestFrame = 64 * 1024;

const Dl_info& module() {
  static const Dl_info info = [] {
    Dl_info found{};
    dladdr(reinterpret_cast<const void*>(&line_of), &found);
    return found;
  }();
  return info;
}

auto& chains = *new std::vector<std::vector<Site>>;
auto& numbers = *new std::map<std::vector<Site>, Site>;

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// "file:line" for each frame of the place, innermost first; functions that were inlined count as frames.
std::vector<std::string> frames_of(const std::vector<Site>& offsets) {
  std::string command = text("addr2line -i -e '", module().dli_fname, "' 2>/dev/null");
  for (Site offset : offsets) command += text(std::hex, " 0x", offset - 1);          // the call, not the instruction behind it
  std::vector<std::string> frames;
  FILE* pipe = popen(command.c_str(), "r");
  char line[4096];
  while (pipe && std::fgets(line, sizeof line, pipe)) {
    std::string frame(line);
    frame.resize(frame.find_first_of(" \n"));      // "(discriminator 2)" may follow
    if (frame.compare(0, 2, "??")) frames.push_back(frame);
  }
  if (pipe) pclose(pipe);
  return frames;
}

// Or to the words by which kernels read and write: the place is where they are called.
bool belongs_to_emulator(const std::string& frame) {
  const std::string name = base_name(frame), file = name.substr(0, name.rfind(':'));
  return frame.find("/emulated/") != std::string::npos || frame.find("/include/c++/") != std::string::npos || file == "kernel.h" ||
         file == "stored.h" || file == "bf16.h";
}

}  // namespace

const char* const code_start = static_cast<const char*>(module().dli_fbase);

__attribute__((noinline)) Site site_of_callers() {
  std::vector<Site> chain;
  auto** frame = static_cast<void**>(__builtin_frame_address(0));
  for (int i = 0; i < kLongestChain; ++i) {
    chain.push_back(site_of(frame[1]));
    auto** next = static_cast<void**>(*frame);
    if (next <= frame || reinterpret_cast<char*>(next) - reinterpret_cast<char*>(frame) > kLargestFrame) break;      // the fiber's first
    frame = next;
  }
  auto [found, is_new] = numbers.emplace(chain, static_cast<Site>(chains.size()));
  if (is_new) chains.push_back(chain);
  return kChain | found->second;
}

std::string line_of(Site site) {
  const std::vector<Site> offsets = site & kChain ? chains[site & ~kChain] : std::vector<Site>{site};
  const auto frames = frames_of(offsets);
  for (const auto& frame : frames)
    if (!belongs_to_emulator(frame)) return base_name(frame);
  return text("offset ", offsets[0], " of ", base_name(module().dli_fname), frames.empty() ? " (needs addr2line and -g for lines)" : "");
}

}  // namespace minialex::emulated::checker
