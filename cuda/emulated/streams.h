// Streams as queues of operations, events as places in them, and the order between operations as vector clocks.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>
#include "devices.h"

namespace minialex::emulated {

using Clock = std::vector<uint64_t>;               // of each stream, how many of its operations have happened before

struct Operation {
  std::function<void()> run;                       // empty: a mark, or a wait alone
  std::string name;
  std::shared_ptr<StreamState> waits_for;          // an event: operation `waits_until` of that stream
  uint64_t waits_until = 0;
  uint64_t number = 0;                             // in its stream, from 1
  uint32_t id = 0;
};

struct StreamState {
  int device, number;
  std::deque<Operation> queue;
  uint64_t issued = 0;
  bool running = false;
  std::shared_ptr<GraphState> capture;             // what is asked of the stream goes into this graph, if there is one
  Clock clock;                                     // kept for the checker only, as all clocks
};

// What a test wants to know of each kernel of a graph.
struct Node {
  std::string name, shape;                         // grid, block and dynamic shared bytes
  std::string arguments;                           // their very bytes
};
struct EventState {
  int device;
  std::shared_ptr<StreamState> stream;             // nullptr: never recorded
  uint64_t number = 0;
  Clock clock;
  std::shared_ptr<EventState> captured;            // recorded in a capture last: the event of the graph that stands for it
  std::weak_ptr<GraphState> graph;
};

// What streams were asked for in a capture, in this order.  Streams are lanes, the one that began the capture is lane 0.
struct Entry {
  enum { work, mark, wait } kind;
  size_t lane;
  Operation operation;                             // of work
  std::shared_ptr<EventState> event;               // of marks and waits
};
struct GraphState {
  std::vector<Entry> entries;
  std::vector<Node> kernels;
  std::vector<std::shared_ptr<StreamState>> streams;       // of each lane: while capturing those of the program, then hidden ones
  std::vector<Clock> done;                         // by lane: how much work of each lane is behind what it does next
  bool open = true;
};

// The state behind a handle; DeviceError for the default stream (nullptr) and for handles that were destroyed.
const std::shared_ptr<StreamState>& known(Stream stream, const char* what);
EventState& known(Event event, const char* what);
Stream add_stream(int device);
void remove_stream(Stream stream);
Event add_event(int device);
void remove_event(Event event);

void push(const std::shared_ptr<StreamState>& stream, Operation&& operation);
void record(EventState& event, const std::shared_ptr<StreamState>& stream);
void wait_for(const std::shared_ptr<StreamState>& stream, const EventState& event);
void synchronize(const std::shared_ptr<StreamState>& stream);
void synchronize(const EventState& event);
void synchronize_device(int device);

void capture(const std::shared_ptr<StreamState>& stream);
size_t lane_of(const std::shared_ptr<StreamState>& stream);                                 // in the graph it is captured into
void capture_wait(const std::shared_ptr<StreamState>& stream, const EventState& event);     // joins the capture, if in none
Graph end_capture(const std::shared_ptr<StreamState>& stream);
const std::shared_ptr<GraphState>& known(Graph graph, const char* what);
void remove_graph(Graph graph);
void refuse_while_capturing(const char* what);                                              // by the calling thread, any stream
void refuse_while_capturing(const std::shared_ptr<StreamState>& stream, const char* what);  // this stream

}  // namespace minialex::emulated
