// How well each line of the kernels uses the banks of shared memory and the sectors of global memory.  Not a model of a GPU: for
// each time the threads of a warp pass a line between two barriers, it counts what one instruction of all 32 would take.
//   shared    passes: the most different words any of the 32 banks has to give; 16-byte accesses go by quarters of a warp, 8-byte by halves
//   global    sectors of 32 bytes touched, against those that the bytes would fill
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <tuple>
#include "shadow.h"

namespace minialex::emulated::checker {

const bool statistics_wanted = [] {
  const char* value = std::getenv("MINIALEX_EMULATED_STATISTICS");
  return value && *value && *value != '0';
}();

namespace {

struct Piece { uint64_t address; uint32_t bytes; };
struct Moment {                                    // the `turn`-th time that lanes of a warp come to a place in an epoch
  Site site;
  uint32_t warp, turn;
  bool shared;
  bool operator<(const Moment& other) const { return std::tie(site, warp, turn, shared) < std::tie(other.site, other.warp, other.turn, other.shared); }
};
struct Sum { uint64_t accesses = 0, cost = 0, least = 0; };

std::map<Moment, std::vector<Piece>> moments;      // of the epoch that runs
std::map<std::pair<Site, uint32_t>, uint32_t> turns;       // of (place, thread)
std::map<std::pair<Site, bool>, Sum> sums;
uint64_t epoch_of_moments = 0;

unsigned bank_passes(const Piece* first, const Piece* end) {
  std::vector<uint64_t> words;
  for (; first != end; ++first)
    for (uint64_t word = first->address / 4; word <= (first->address + first->bytes - 1) / 4; ++word) words.push_back(word);
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  unsigned banks[32] = {};
  for (uint64_t word : words) ++banks[word % 32];
  return *std::max_element(banks, banks + 32);
}

unsigned sectors(const std::vector<Piece>& pieces) {
  std::vector<uint64_t> touched;
  for (const Piece& piece : pieces)
    for (uint64_t sector = piece.address / 32; sector <= (piece.address + piece.bytes - 1) / 32; ++sector) touched.push_back(sector);
  std::sort(touched.begin(), touched.end());
  return static_cast<unsigned>(std::unique(touched.begin(), touched.end()) - touched.begin());
}

void close_epoch() {
  for (auto& [moment, pieces] : moments) {
    Sum& sum = sums[{moment.site, moment.shared}];
    ++sum.accesses;
    if (moment.shared) {
      const size_t together = pieces[0].bytes <= 4 ? 32 : pieces[0].bytes == 8 ? 16 : 8;
      for (size_t i = 0; i < pieces.size(); i += together) {
        sum.cost += bank_passes(&pieces[i], &pieces[0] + std::min(i + together, pieces.size()));
        ++sum.least;
      }
    } else {
      uint64_t bytes = 0;
      for (const Piece& piece : pieces) bytes += piece.bytes;
      sum.cost += sectors(pieces);
      sum.least += (bytes + 31) / 32;
    }
  }
  moments.clear();
  turns.clear();
}

struct Report {
  ~Report() {
    close_epoch();
    std::map<std::string, Sum> lines;
    for (auto& [place, sum] : sums) {
      Sum& line = lines[line_of(place.first) + (place.second ? " shared" : " global")];
      line.accesses += sum.accesses;
      line.cost += sum.cost;
      line.least += sum.least;
    }
    for (auto& [name, sum] : lines)
      std::fprintf(stderr, "[minialex] %-36s %9llu accesses of a warp, %5.2f %s each (at best %.2f)\n", name.c_str(),
                   static_cast<unsigned long long>(sum.accesses), double(sum.cost) / double(sum.accesses),
                   name.back() == 'd' ? "passes" : "sectors", double(sum.least) / double(sum.accesses));
  }
} report;

}  // namespace

void count_access(const Region& region, const char* pointer, size_t bytes, Site site) {
  const Block& block = *current->block;
  const uint64_t epoch = (uint64_t(block.operation) << 40) ^ (block.linear << 16) ^ block.epoch;
  if (epoch != epoch_of_moments) close_epoch();
  epoch_of_moments = epoch;
  const uint32_t turn = turns[{site, current->linear}]++;
  const uint64_t address = region.shared() ? static_cast<uint64_t>(pointer - region.first) : reinterpret_cast<uint64_t>(pointer);
  moments[{site, current->warp, turn, region.shared()}].push_back({address, static_cast<uint32_t>(bytes)});
}

}  // namespace minialex::emulated::checker
