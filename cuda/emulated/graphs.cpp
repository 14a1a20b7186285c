// Captures: operations of a stream that are kept for later, with CUDA's rules of what may not happen meanwhile.
#include "graphs.h"
#include <unordered_map>
#include "streams.h"

namespace minialex::emulated {
namespace {

auto& graphs = *new std::unordered_map<Graph, std::shared_ptr<GraphState>>;    // never destroyed, as streams
thread_local int captures = 0;                     // that the calling thread has begun

}  // namespace

void refuse_while_capturing(const char* what) {
  MINIALEX_CHECK(DeviceError, !captures, what, ": this thread is capturing a graph, in which nothing is allocated or waited for; do it before");
}

void refuse_while_capturing(const std::shared_ptr<StreamState>& stream, const char* what) {
  MINIALEX_CHECK(DeviceError, !stream->capture, what, ": the stream is capturing a graph, in which nothing is waited for");
}

void capture(const std::shared_ptr<StreamState>& stream) {
  refuse_while_capturing(stream, "capture_begin");
  stream->capture = std::make_shared<GraphState>();
  stream->capture->device = stream->device;
  ++captures;
}

Graph end_capture(const std::shared_ptr<StreamState>& stream) {
  MINIALEX_CHECK(DeviceError, stream->capture, "capture_end: the stream is not capturing");
  auto graph = std::move(stream->capture);
  stream->capture = nullptr;
  --captures;
  graphs[graph.get()] = graph;
  return graph.get();
}

const std::shared_ptr<GraphState>& known(Graph graph, const char* what) {
  auto found = graphs.find(graph);
  MINIALEX_CHECK(DeviceError, found != graphs.end(), what, ": there is no such graph, or it was destroyed");
  return found->second;
}

void remove_graph(Graph graph) { graphs.erase(graph); }

std::vector<std::pair<std::string, std::string>> graph_kernels(Graph graph) {
  RuntimeGuard guard;
  std::vector<std::pair<std::string, std::string>> rows;
  for (const auto& node : known(graph, "graph_kernels")->kernels) rows.emplace_back(node.name + " " + node.shape, node.arguments);
  return rows;
}

}  // namespace minialex::emulated

namespace minialex::runtime {
using namespace minialex::emulated;

void capture_begin(Stream stream) {
  RuntimeGuard guard;
  capture(known(stream, "capture_begin"));
}
Graph capture_end(Stream stream) {
  RuntimeGuard guard;
  return end_capture(known(stream, "capture_end"));
}
size_t graph_size(Graph graph) {
  RuntimeGuard guard;
  return known(graph, "graph_size")->operations.size();
}
void graph_launch(Graph graph, Stream stream) {
  RuntimeGuard guard;
  auto kept = known(graph, "graph_launch");
  auto& queue = known(stream, "graph_launch");
  refuse_while_capturing(queue, "graph_launch");
  MINIALEX_CHECK(DeviceError, queue->device == kept->device, "graph_launch: the graph was captured on device ", kept->device,
                 ", the stream belongs to device ", queue->device);
  for (const auto& operation : kept->operations) push(queue, Operation(operation));
}
void graph_destroy(Graph graph) {
  RuntimeGuard guard;
  known(graph, "graph_destroy");
  remove_graph(graph);
}

}  // namespace minialex::runtime
