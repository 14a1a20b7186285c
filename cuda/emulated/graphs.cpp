// Captures: operations of a stream that are kept for later, with CUDA's rules of what may not happen meanwhile.
#include "graphs.h"
#include <algorithm>
#include <unordered_map>
#include "streams.h"

namespace minialex::emulated {
namespace {

auto& graphs = *new std::unordered_map<Graph, std::shared_ptr<GraphState>>;    // never destroyed, as streams
thread_local int captures = 0;                     // that the calling thread has begun

}  // namespace

void refuse_while_capturing(const char* what) {
  MINIALEX_CHECK(DeviceError, !captures, what,
                 ": this thread is capturing a graph, in which nothing is allocated or waited for; do it before");
}

void refuse_while_capturing(const std::shared_ptr<StreamState>& stream, const char* what) {
  MINIALEX_CHECK(DeviceError, !stream->capture, what, ": the stream is capturing a graph, in which nothing is waited for");
}

namespace {

void add_lane(const std::shared_ptr<GraphState>& graph, const std::shared_ptr<StreamState>& stream) {
  stream->capture = graph;
  graph->streams.push_back(stream);
  graph->done.emplace_back();
  for (auto& clock : graph->done) clock.resize(graph->streams.size());
}

}  // namespace

void capture(const std::shared_ptr<StreamState>& stream) {
  refuse_while_capturing(stream, "capture_begin");
  add_lane(std::make_shared<GraphState>(), stream);
  ++captures;
}

size_t lane_of(const std::shared_ptr<StreamState>& stream) {
  auto& all = stream->capture->streams;
  return static_cast<size_t>(std::find(all.begin(), all.end(), stream) - all.begin());
}

void capture_wait(const std::shared_ptr<StreamState>& stream, const EventState& event) {
  MINIALEX_CHECK(DeviceError, event.captured, "stream_wait: the stream is capturing a graph, which cannot wait for an event from before");
  auto graph = event.graph.lock();
  MINIALEX_CHECK(DeviceError, graph && graph->open, "stream_wait: the event was recorded in a capture that has ended");
  if (!stream->capture) add_lane(graph, stream);
  MINIALEX_CHECK(DeviceError, stream->capture == graph, "stream_wait: the event belongs to the capture of another graph");
  const size_t lane = lane_of(stream);
  auto& clock = graph->done[lane];
  for (size_t i = 0; i < event.captured->clock.size(); ++i) clock[i] = std::max(clock[i], event.captured->clock[i]);
  graph->entries.push_back({Entry::wait, lane, {}, event.captured});
}

Graph end_capture(const std::shared_ptr<StreamState>& stream) {
  MINIALEX_CHECK(DeviceError, stream->capture, "capture_end: the stream is not capturing");
  auto graph = stream->capture;
  MINIALEX_CHECK(DeviceError, graph->streams[0] == stream, "capture_end: another stream began this capture");
  --captures;
  graph->open = false;
  std::string apart;
  for (size_t lane = 0; lane < graph->streams.size(); ++lane) {
    auto& state = graph->streams[lane];
    state->capture = nullptr;
    if (graph->done[0][lane] < graph->done[lane][lane]) apart = text("stream ", state->number);
  }
  MINIALEX_CHECK(DeviceError, apart.empty(), "capture_end: nobody waits for the work of ", apart,
                 "; the stream that began must, in the end");
  for (size_t lane = 1; lane < graph->streams.size(); ++lane) {
    auto kept = graph->streams[lane];
    graph->streams[lane] = known(add_stream(kept->device), "capture_end");
  }
  graphs[graph.get()] = graph;
  return graph.get();
}

const std::shared_ptr<GraphState>& known(Graph graph, const char* what) {
  auto found = graphs.find(graph);
  MINIALEX_CHECK(DeviceError, found != graphs.end(), what, ": there is no such graph, or it was destroyed");
  return found->second;
}

void remove_graph(Graph graph) {
  auto kept = known(graph, "graph_destroy");
  graphs.erase(graph);
  for (size_t lane = 1; lane < kept->streams.size(); ++lane) {
    remove_stream(kept->streams[lane].get());
    synchronize(kept->streams[lane]);
  }
}

// Lane 0 is the stream of the launch, the others begin behind what it was asked before, and end before what it is asked next.
void launch_graph(const GraphState& graph, const std::shared_ptr<StreamState>& stream) {
  auto lane = [&](size_t i) -> const std::shared_ptr<StreamState>& { return i ? graph.streams[i] : stream; };
  EventState border;
  record(border, stream);
  for (size_t i = 1; i < graph.streams.size(); ++i) wait_for(lane(i), border);
  for (const auto& entry : graph.entries) {
    if (entry.kind == Entry::work) push(lane(entry.lane), Operation(entry.operation));
    if (entry.kind == Entry::mark) record(*entry.event, lane(entry.lane));
    if (entry.kind == Entry::wait) wait_for(lane(entry.lane), *entry.event);
  }
  for (size_t i = 1; i < graph.streams.size(); ++i) {
    record(border, lane(i));
    wait_for(stream, border);
  }
}

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
  auto& entries = known(graph, "graph_size")->entries;
  return static_cast<size_t>(std::count_if(entries.begin(), entries.end(), [](const Entry& entry) { return entry.kind == Entry::work; }));
}
size_t graph_depth(Graph graph) {
  RuntimeGuard guard;
  auto& kept = known(graph, "graph_depth");
  std::vector<size_t> lanes(kept->streams.size());
  std::unordered_map<const EventState*, size_t> marks;
  for (const auto& entry : kept->entries) {
    auto& depth = lanes[entry.lane];
    if (entry.kind == Entry::work) ++depth;
    if (entry.kind == Entry::mark) marks[entry.event.get()] = depth;
    if (entry.kind == Entry::wait) depth = std::max(depth, marks.at(entry.event.get()));
  }
  return *std::max_element(lanes.begin(), lanes.end());
}
void graph_launch(Graph graph, Stream stream) {
  RuntimeGuard guard;
  auto kept = known(graph, "graph_launch");
  auto queue = known(stream, "graph_launch");
  refuse_while_capturing(queue, "graph_launch");
  const int device = kept->streams[0]->device;
  MINIALEX_CHECK(DeviceError, queue->device == device, "graph_launch: the graph was captured on device ", device,
                 ", the stream belongs to device ", queue->device);
  launch_graph(*kept, queue);
}
void graph_destroy(Graph graph) {
  RuntimeGuard guard;
  remove_graph(graph);
}

}  // namespace minialex::runtime
