#include "settings.h"
#include <cstdlib>
#include "devices.h"
#include "minialex/check.h"

namespace minialex::emulated {
namespace {

// The number that `value` holds from its character `start` on.
uint64_t number(const std::string& name, const std::string& value, size_t start, uint64_t lowest, uint64_t highest) {
  std::string digits = value.substr(start);
  bool good = !digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos && digits.size() < 20;
  uint64_t result = good ? std::strtoull(digits.c_str(), nullptr, 10) : 0;
  MINIALEX_CHECK(DeviceError, good && result >= lowest && result <= highest, "the emulator's setting ", name, " is \"", value,
                 "\"; it takes ", start ? "behind the colon " : "", "a number from ", lowest, " to ", highest);
  return result;
}

// The word of `value` among `words`; behind the last of them, random, a colon and a seed may stand.
int choice(const std::string& name, const std::string& value, std::initializer_list<const char*> words, uint64_t* seed) {
  std::string word = value.substr(0, value.find(':')), all;
  int i = 0, last = static_cast<int>(words.size()) - 1;
  for (const char* candidate : words) {
    if (word == candidate && (word == value || i == last)) {
      if (word != value) *seed = number(name, value, word.size() + 1, 0, UINT64_MAX);
      return i;
    }
    all += (i++ ? ", " : "") + std::string(candidate);
  }
  throw DeviceError(text("the emulator's setting ", name, " is \"", value, "\"; it takes one of ", all, " (random:7 for the seed 7)"));
}

void set(Settings& to, const std::string& name, const std::string& value) {
  if (name == "order") to.order = Order(choice(name, value, {"forward", "reverse", "random"}, &to.seed));
  else if (name == "streams") to.streams = Streams(choice(name, value, {"now", "lazy", "random"}, &to.seed));
  else if (name == "seed") to.seed = number(name, value, 0, 0, UINT64_MAX);
  else if (name == "devices") to.devices = static_cast<int>(number(name, value, 0, 0, 16));
  else if (name == "workers") to.workers = static_cast<int>(number(name, value, 0, 0, 64));
  else if (name == "peers") to.peers = number(name, value, 0, 0, 1) != 0;
  else if (name == "protect") to.protect = static_cast<int>(number(name, value, 0, 0, 2));
  else if (name == "strict") to.strict = number(name, value, 0, 0, 1) != 0;
  else if (name == "memory") to.memory = static_cast<size_t>(number(name, value, 0, 1, 1 << 20)) << 20;
  else if (name == "shared") to.shared = static_cast<size_t>(number(name, value, 0, 99, 227)) << 10;
}

Settings from_environment() {
  Settings result;
  for (const char* name : {"seed", "order", "streams", "devices", "workers", "peers", "protect", "strict", "memory", "shared"}) {
    std::string variable = "MINIALEX_EMULATED_";
    for (const char* letter = name; *letter; ++letter) variable += static_cast<char>(*letter - 'a' + 'A');
    if (const char* value = std::getenv(variable.c_str()); value && *value) set(result, name, value);
  }
  return result;
}

Settings& mutable_settings() {
  static Settings instance = from_environment();
  return instance;
}

}  // namespace

const Settings& settings() { return mutable_settings(); }

void configure(const std::string& name, const std::string& value) {
  bool known = name == "order" || name == "streams" || name == "seed" || name == "protect" || name == "strict" || name == "shared";
  MINIALEX_CHECK(DeviceError, known, "the emulator's setting ", name, " cannot be changed now; order, streams, seed, protect, strict",
                 " and shared can, the others come from MINIALEX_EMULATED_... at the start");
  RuntimeGuard guard;
  Settings changed = settings();
  set(changed, name, value);
  synchronize_all();                               // what was enqueued runs as it was meant to
  mutable_settings() = changed;
  apply_protection();
}

}  // namespace minialex::emulated
