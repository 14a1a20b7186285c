// How the emulator runs, from the environment at the first use and from configure().
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace minialex::emulated {

enum class Order { forward, reverse, random };     // of threads after each barrier, and of blocks
enum class Streams { now, lazy, random };          // work on a stream runs at once; when a synchronise needs it; some after each call

struct Settings {
  Order order = Order::forward;                    // MINIALEX_EMULATED_ORDER = forward | reverse | random[:seed]
  Streams streams = Streams::now;                  // MINIALEX_EMULATED_STREAMS = now | lazy | random[:seed]
  uint64_t seed = 1;                               // MINIALEX_EMULATED_SEED, or behind the colon above
  int devices = 2;                                 // MINIALEX_EMULATED_DEVICES = 0 .. 16
  int workers = 0;                                 // MINIALEX_EMULATED_WORKERS: OS threads that run blocks; 0: one a core, at most 8
  bool peers = true;                               // MINIALEX_EMULATED_PEERS = 0: no device may touch another's memory
  int protect = 1;                                 // MINIALEX_EMULATED_PROTECT = 0 | 1 | 2, see devices.h
  bool strict = true;                              // MINIALEX_EMULATED_STRICT = 0: barriers and warps take no notice of returned threads
  size_t memory = size_t(16) << 30;                // MINIALEX_EMULATED_MEMORY, in MiB: of each device
  size_t shared = size_t(227) << 10;               // MINIALEX_EMULATED_SHARED = 99 .. 227, in KiB: what a block may ask for
};

const Settings& settings();                        // DeviceError where the environment holds a word that is not above

// Changes order, streams, seed, protect, strict ("strict" = 0 | 1) or shared from now on; DeviceError for other names and for bad values.
void configure(const std::string& name, const std::string& value);

}  // namespace minialex::emulated
