// What tests ask a captured graph, which no GPU tells.
#pragma once
#include <string>
#include <utility>
#include <vector>
#include "minialex/runtime.h"

namespace minialex::emulated {

// (name, grid, block and dynamic shared bytes; the very bytes of the arguments) of each kernel, in order.
std::vector<std::pair<std::string, std::string>> graph_kernels(Graph graph);

}  // namespace minialex::emulated
