// Devices, memory, streams and events: the calls of the CUDA runtime that the project uses, and no others.
// runtime.cu forwards them to CUDA; emulated/runtime.cpp gives make-believe devices with the same rules.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#if !defined(MINIALEX_EMULATED)
#include <cuda_runtime.h>
#endif

namespace minialex {
#if defined(MINIALEX_EMULATED)
namespace emulated {
struct StreamState;
struct EventState;
struct GraphState;
}  // namespace emulated
using Stream = emulated::StreamState*;
using Event = emulated::EventState*;
using Graph = emulated::GraphState*;
#else
using Stream = cudaStream_t;
using Event = cudaEvent_t;
using Graph = struct GraphState*;
#endif

namespace runtime {
// Every function throws DeviceError (DeviceMemoryError from allocate) with the runtime's own words.
int device_count();                                  // 0 where there is no GPU or no driver: never throws
std::string unavailable_reason();                    // "" where a device can be used, else why not and what helps
std::string describe(int device);                    // name, memory, compute capability
size_t shared_per_block(int device);                 // bytes of shared memory that a block may ask for
void set_device(int device);                         // of the calling thread
int get_device();
int device_of(const void* pointer);                  // -1: not device memory
void memory_info(size_t* free_bytes, size_t* total_bytes);   // of the current device
bool can_access_peer(int device, int peer);
void enable_peer(int peer);                          // lets kernels of the current device touch peer's memory; enabling twice is fine

void* allocate(size_t bytes);                        // on the current device, aligned to 256 bytes
void release(void* pointer);
void* allocate_pinned(size_t bytes);
void release_pinned(void* pointer);

// On the current device; never the default stream.  `ahead`: its kernels get multiprocessors before those of streams that are not.
Stream stream_create(bool ahead = false);
void stream_destroy(Stream stream);
void stream_synchronize(Stream stream);
void device_synchronize();
Event event_create();
void event_destroy(Event event);
void event_record(Event event, Stream stream);
void stream_wait(Stream stream, Event event);        // later work of `stream` starts after `event`
void event_synchronize(Event event);

void copy(void* to, const void* from, size_t bytes, Stream stream);      // host <-> device, or within a device
void copy_peer(void* to, int to_device, const void* from, int from_device, size_t bytes, Stream stream);
void fill(void* pointer, int byte, size_t bytes, Stream stream);

// What is asked of `stream` between begin and end by the calling thread does not run: it becomes a graph, which one call launches as
// often as wanted, with the very arguments of the capture.  Nothing may be allocated or waited for in between.
void capture_begin(Stream stream);
Graph capture_end(Stream stream);
size_t graph_size(Graph graph);                      // launches and copies in it
size_t graph_depth(Graph graph);                     // and of these in its longest chain, each of which waits for the one before
void graph_launch(Graph graph, Stream stream);
void graph_destroy(Graph graph);
}  // namespace runtime
}  // namespace minialex
