// runtime.h on a real GPU: each call forwarded to CUDA's runtime, its failures as exceptions with CUDA's own words.
#include <minialex/kernel.h>
#if !defined(MINIALEX_EMULATED)
#include <algorithm>
#include <map>
#include <vector>

namespace minialex {

void cuda_check(cudaError_t status, const char* what, const char* file, int line) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();                             // an error that does not kill the context must not haunt the next call
  const std::string words = text(what, ": ", cudaGetErrorName(status), ", ", cudaGetErrorString(status), " (", file, ":", line, ")");
  if (status == cudaErrorMemoryAllocation) throw DeviceMemoryError(words);
  throw DeviceError(words);
}

namespace runtime {

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
}

std::string unavailable_reason() {
  // Without a driver cudaGetDeviceCount answers "driver too old", which misleads: ask for the driver first.
  int driver = 0, built = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) (void)cudaGetLastError();
  if (cudaRuntimeGetVersion(&built) != cudaSuccess) (void)cudaGetLastError();
  if (driver == 0) return "no NVIDIA driver on this machine; install one, or use --device cpu";
  const auto version = [](int v) { return text(v / 1000, ".", v % 1000 / 10); };
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver)
    return text("the NVIDIA driver is too old: it speaks CUDA ", version(driver), ", MiniAlex was built with CUDA ", version(built),
                "; update the driver, or rebuild with that CUDA toolkit");
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    return "the NVIDIA driver finds no GPU; is one there, and does CUDA_VISIBLE_DEVICES show it?";
  if (status != cudaSuccess) return text("CUDA does not start: ", cudaGetErrorString(status));
  int major = 0;
  for (int device = 0; device < count; ++device)
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess || major >= 8) return "";
  return text("the newest GPU here has compute capability ", major, ".x; the kernels need 8.0 (Ampere) or later; use --device cpu");
}

std::string describe(int device) {
  cudaDeviceProp facts;
  CUDA_CHECK(cudaGetDeviceProperties(&facts, device));
  return text(facts.name, ", ", facts.totalGlobalMem >> 20, " MiB, compute capability ", facts.major, ".", facts.minor, ", ", facts.multiProcessorCount, " SMs");
}

size_t shared_per_block(int device) {
  int bytes = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<size_t>(bytes);
}
void set_device(int device) { CUDA_CHECK(cudaSetDevice(device)); }
int get_device() {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  return device;
}
int device_of(const void* pointer) {
  cudaPointerAttributes facts;
  if (cudaPointerGetAttributes(&facts, pointer) != cudaSuccess) {
    (void)cudaGetLastError();
    return -1;
  }
  return facts.type == cudaMemoryTypeDevice || facts.type == cudaMemoryTypeManaged ? facts.device : -1;
}
void memory_info(size_t* free_bytes, size_t* total_bytes) { CUDA_CHECK(cudaMemGetInfo(free_bytes, total_bytes)); }
bool can_access_peer(int device, int peer) {
  int can = 0;
  CUDA_CHECK(cudaDeviceCanAccessPeer(&can, device, peer));
  return can != 0;
}
void enable_peer(int peer) {
  const cudaError_t status = cudaDeviceEnablePeerAccess(peer, 0);
  if (status == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();
    return;
  }
  CUDA_CHECK(status);
}

void* allocate(size_t bytes) {
  void* pointer = nullptr;
  const cudaError_t status = cudaMalloc(&pointer, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    memory_info(&free_bytes, &total_bytes);
    throw DeviceMemoryError(text("device ", get_device(), " has ", free_bytes, " of ", total_bytes, " bytes free, ", bytes, " were asked for"));
  }
  CUDA_CHECK(status);
  return pointer;
}
void release(void* pointer) { CUDA_CHECK(cudaFree(pointer)); }
void* allocate_pinned(size_t bytes) {
  void* pointer = nullptr;
  CUDA_CHECK(cudaMallocHost(&pointer, bytes));
  return pointer;
}
void release_pinned(void* pointer) { CUDA_CHECK(cudaFreeHost(pointer)); }

Stream stream_create(bool ahead) {
  Stream stream = nullptr;
  int last = 0, first = 0;
  CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&last, &first));
  CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, ahead ? first : last));
  return stream;
}
void stream_destroy(Stream stream) { CUDA_CHECK(cudaStreamDestroy(stream)); }
void stream_synchronize(Stream stream) { CUDA_CHECK(cudaStreamSynchronize(stream)); }
void device_synchronize() { CUDA_CHECK(cudaDeviceSynchronize()); }
Event event_create() {
  Event event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}
void event_destroy(Event event) { CUDA_CHECK(cudaEventDestroy(event)); }
void event_record(Event event, Stream stream) { CUDA_CHECK(cudaEventRecord(event, stream)); }
void stream_wait(Stream stream, Event event) { CUDA_CHECK(cudaStreamWaitEvent(stream, event, 0)); }
void event_synchronize(Event event) { CUDA_CHECK(cudaEventSynchronize(event)); }

void copy(void* to, const void* from, size_t bytes, Stream stream) { CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream)); }
void copy_peer(void* to, int to_device, const void* from, int from_device, size_t bytes, Stream stream) {
  CUDA_CHECK(cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, stream));
}
void fill(void* pointer, int byte, size_t bytes, Stream stream) { CUDA_CHECK(cudaMemsetAsync(pointer, byte, bytes, stream)); }

}  // namespace runtime

struct GraphState {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
};

namespace runtime {

// Thread-local: threads that read pictures may allocate pinned memory meanwhile.
void capture_begin(Stream stream) { CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal)); }
Graph capture_end(Stream stream) {
  GraphState state;
  CUDA_CHECK(cudaStreamEndCapture(stream, &state.graph));
  // Kernels have the priorities of the streams they were captured from, not that of the stream which launches them all.
  const cudaError_t status = cudaGraphInstantiate(&state.ready, state.graph, cudaGraphInstantiateFlagUseNodePriority);
  if (status != cudaSuccess) (void)cudaGraphDestroy(state.graph);
  CUDA_CHECK(status);
  return new GraphState(state);
}
size_t graph_size(Graph graph) {
  size_t nodes = 0;
  CUDA_CHECK(cudaGraphGetNodes(graph->graph, nullptr, &nodes));
  return nodes;
}
size_t graph_depth(Graph graph) {
  const auto edges_of = [&](cudaGraphNode_t* from, cudaGraphNode_t* to, size_t* count) {
#if CUDART_VERSION >= 13000
    return cudaGraphGetEdges(graph->graph, from, to, nullptr, count);
#else
    return cudaGraphGetEdges(graph->graph, from, to, count);
#endif
  };
  size_t count = 0, deepest = graph_size(graph) ? 1 : 0;
  CUDA_CHECK(edges_of(nullptr, nullptr, &count));
  std::vector<cudaGraphNode_t> from(count), to(count);
  if (count) CUDA_CHECK(edges_of(from.data(), to.data(), &count));
  std::map<cudaGraphNode_t, size_t> depth;              // 0 stands for 1: a node that waits for none
  for (bool grows = true; grows;) {                     // edges come in no particular order
    grows = false;
    for (size_t i = 0; i < count; ++i) {
      const size_t behind = std::max<size_t>(depth[from[i]], 1) + 1;
      if (behind <= depth[to[i]]) continue;
      depth[to[i]] = behind;
      deepest = std::max(deepest, behind);
      grows = true;
    }
  }
  return deepest;
}
void graph_launch(Graph graph, Stream stream) { CUDA_CHECK(cudaGraphLaunch(graph->ready, stream)); }
void graph_destroy(Graph graph) {
  const cudaError_t ready = cudaGraphExecDestroy(graph->ready), whole = cudaGraphDestroy(graph->graph);
  delete graph;
  CUDA_CHECK(ready);
  CUDA_CHECK(whole);
}

}  // namespace runtime
}  // namespace minialex
#endif
