#include "streams.h"
#include <algorithm>
#include <unordered_map>
#include "block.h"
#include "checker.h"

namespace minialex::emulated {

void (*note_access)(const void* pointer, size_t bytes, Access kind) = nullptr;
void (*on_block_start)(const char* shared_memory, size_t bytes) = nullptr;
std::string (*on_block_end)() = nullptr;
void (*on_device_added)(int device, const char* memory, size_t bytes) = nullptr;

namespace {

// Never destroyed: handles may outlive the static objects of a process that ends.
auto& streams = *new std::unordered_map<Stream, std::shared_ptr<StreamState>>;
auto& events = *new std::unordered_map<Event, std::shared_ptr<EventState>>;
auto& in_order = *new std::vector<Stream>;         // of creation, so that `random` is a function of the seed

struct Remembered {                                // an operation, for the checker
  int stream;
  uint64_t number;
  Clock clock;
  std::string name;
};
auto& history = *new std::vector<Remembered>(1);   // by id
auto& host_clock = *new Clock;
uint32_t running_operation = 0;

void join(Clock& into, const Clock& other) {
  if (!note_access) return;
  if (into.size() < other.size()) into.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

void run_until(const std::shared_ptr<StreamState>& stream, uint64_t number) {
  while (!stream->queue.empty() && stream->queue.front().number <= number) {
    MINIALEX_CHECK(DeviceError, !stream->running, "streams wait for each other in a circle: stream ", stream->number, " for itself");
    stream->running = true;
    uint32_t outer = running_operation;
    try {
      if (auto& other = stream->queue.front().waits_for) run_until(other, stream->queue.front().waits_until);
      Operation operation = std::move(stream->queue.front());
      stream->queue.pop_front();
      running_operation = operation.id;
      if (operation.run) operation.run();
    } catch (...) {                                // what came behind the failure counted on it: it is dropped, and the stream is usable
      stream->queue.clear();
      stream->running = false;
      running_operation = outer;
      throw;
    }
    stream->running = false;
    running_operation = outer;
  }
}

void run_some_at_random() {
  static uint64_t steps = 0;
  Random random(settings().seed + 0x51ED270Bu * ++steps);
  for (unsigned left = random.below(3); left; --left) {
    std::vector<Stream> waiting;
    std::copy_if(in_order.begin(), in_order.end(), std::back_inserter(waiting), [](Stream stream) { return !stream->queue.empty(); });
    if (waiting.empty()) return;
    auto& chosen = streams.at(waiting[random.below(static_cast<unsigned>(waiting.size()))]);
    run_until(chosen, chosen->queue.front().number);
  }
}

}  // namespace

const std::shared_ptr<StreamState>& known(Stream stream, const char* what) {
  MINIALEX_CHECK(DeviceError, stream, what, ": the default stream is not used in this project; make one with stream_create");
  auto found = streams.find(stream);
  MINIALEX_CHECK(DeviceError, found != streams.end(), what, ": the stream was destroyed");
  return found->second;
}

EventState& known(Event event, const char* what) {
  auto found = events.find(event);
  MINIALEX_CHECK(DeviceError, found != events.end(), what, ": there is no such event, or it was destroyed");
  return *found->second;
}

Stream add_stream(int device) {
  static int count = 0;
  auto stream = std::make_shared<StreamState>();
  stream->device = device;
  stream->number = count++;
  streams[stream.get()] = stream;
  in_order.push_back(stream.get());
  return stream.get();
}

void remove_stream(Stream stream) {
  in_order.erase(std::find(in_order.begin(), in_order.end(), stream));
  streams.erase(stream);                           // events recorded in it keep it
}

Event add_event(int device) {
  auto event = std::make_shared<EventState>();
  event->device = device;
  events[event.get()] = event;
  return event.get();
}

void remove_event(Event event) { events.erase(event); }

void push(const std::shared_ptr<StreamState>& stream, Operation&& operation) {
  if (stream->capture) {
    auto& graph = *stream->capture;
    const size_t lane = lane_of(stream);
    ++graph.done[lane][lane];
    graph.entries.push_back({Entry::work, lane, std::move(operation), nullptr});
    return;
  }
  operation.number = ++stream->issued;
  if (note_access) {
    auto own = static_cast<size_t>(stream->number);
    join(stream->clock, host_clock);
    if (stream->clock.size() <= own) stream->clock.resize(own + 1);
    stream->clock[own] = operation.number;
    operation.id = static_cast<uint32_t>(history.size());
    history.push_back({stream->number, operation.number, stream->clock, operation.name});
  }
  stream->queue.push_back(std::move(operation));
  if (settings().streams == Streams::now) run_until(stream, stream->issued);
  if (settings().streams == Streams::random) run_some_at_random();
}

void record(EventState& event, const std::shared_ptr<StreamState>& stream) {
  event.captured = nullptr;
  if (auto& graph = stream->capture) {
    event.captured = std::make_shared<EventState>();
    event.captured->clock = graph->done[lane_of(stream)];
    event.graph = graph;
    graph->entries.push_back({Entry::mark, lane_of(stream), {}, event.captured});
    return;
  }
  push(stream, Operation{});
  event.stream = stream;
  event.number = stream->issued;
  event.clock = stream->clock;
}

void wait_for(const std::shared_ptr<StreamState>& stream, const EventState& event) {
  if (event.captured || stream->capture) return capture_wait(stream, event);
  if (!event.stream) {
    MINIALEX_CHECK(DeviceError, !settings().strict, "stream_wait: the event was never recorded, so nothing would wait; record it first");
    return;
  }
  Operation operation;
  operation.waits_for = event.stream;
  operation.waits_until = event.number;
  join(stream->clock, event.clock);
  push(stream, std::move(operation));
}

void synchronize(const std::shared_ptr<StreamState>& stream) {
  refuse_while_capturing(stream, "to wait for a stream");
  run_until(stream, stream->issued);
  join(host_clock, stream->clock);
}

void synchronize(const EventState& event) {
  MINIALEX_CHECK(DeviceError, !event.captured, "event_synchronize: the event was recorded in a capture");
  if (!event.stream) return;
  run_until(event.stream, event.number);
  join(host_clock, event.clock);
}

void synchronize_device(int device) {
  auto all = in_order;
  for (Stream stream : all)
    if ((device < 0 || stream->device == device) && !stream->capture) synchronize(streams.at(stream));
}

void synchronize_all() { synchronize_device(-1); }

uint32_t current_operation() { return running_operation; }

bool happens_before(uint32_t first, uint32_t second) {
  if (!first || first == second) return true;
  const Remembered &a = history.at(first), &b = history.at(second);
  auto stream = static_cast<size_t>(a.stream);
  return stream < b.clock.size() && b.clock[stream] >= a.number;
}

std::string operation_name(uint32_t operation) {
  const Remembered& found = history.at(operation);
  return text(found.name, " (stream ", found.stream, ", operation ", found.number, ")");
}

}  // namespace minialex::emulated
