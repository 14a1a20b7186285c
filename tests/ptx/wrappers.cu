// One kernel of one block for each function of tensor_core.h and bf16.h, and a shuffle reduction and a tile transpose; every kernel
// takes words in `a` and `b` and gives words in `out`.  test_ptx.py runs what nvcc and what the host compiler makes of them.
#include <minialex/kernel.h>
#include <minialex/tensor_core.h>
#include <map>

namespace {
using namespace minialex;

// Register i of a lane's fragment of COUNT registers lies at [lane][i].
template <int COUNT> MINIALEX_DEVICE void load_fragment(uint32_t (&r)[COUNT], const uint32_t* from) {
  MINIALEX_UNROLL for (int i = 0; i < COUNT; ++i) r[i] = from[threadIdx.x * COUNT + i];
}
template <int COUNT> MINIALEX_DEVICE void store_fragment(const uint32_t (&r)[COUNT], uint32_t* to) {
  MINIALEX_UNROLL for (int i = 0; i < COUNT; ++i) to[threadIdx.x * COUNT + i] = r[i];
}
MINIALEX_DEVICE void store_floats(const float (&d)[4], uint32_t* to) {
  MINIALEX_UNROLL for (int i = 0; i < 4; ++i) to[threadIdx.x * 4 + i] = __float_as_uint(d[i]);
}

}  // namespace

#define WRAPPER(name) \
  __global__ void name(const uint32_t* __restrict__ a, [[maybe_unused]] const uint32_t* __restrict__ b, uint32_t* __restrict__ out)

WRAPPER(to_tf32_wrapper) { out[threadIdx.x] = to_tf32(__uint_as_float(a[threadIdx.x])); }

WRAPPER(pack_bf16_wrapper) { out[threadIdx.x] = pack_bf16(__uint_as_float(a[threadIdx.x]), __uint_as_float(b[threadIdx.x])); }

// The helpers without an instruction of their own: the halves of a[i] in float32, and b[i] rounded.
WRAPPER(bf16_wrapper) {
  out[threadIdx.x * 3] = __float_as_uint(bf16_low(a[threadIdx.x]));
  out[threadIdx.x * 3 + 1] = __float_as_uint(bf16_high(a[threadIdx.x]));
  out[threadIdx.x * 3 + 2] = bf16_bits(__uint_as_float(b[threadIdx.x]));
}

// `a` holds the fragments of A, behind them those of C.
WRAPPER(mma_tf32_wrapper) {
  uint32_t left[4], right[2], start[4];
  load_fragment(left, a);
  load_fragment(right, b);
  load_fragment(start, a + 128);
  float d[4] = {__uint_as_float(start[0]), __uint_as_float(start[1]), __uint_as_float(start[2]), __uint_as_float(start[3])};
  mma_m16n8k8_tf32(d, left, right);
  store_floats(d, out);
}

WRAPPER(mma_bf16_wrapper) {
  uint32_t left[4], right[2], start[4];
  load_fragment(left, a);
  load_fragment(right, b);
  load_fragment(start, a + 128);
  float d[4] = {__uint_as_float(start[0]), __uint_as_float(start[1]), __uint_as_float(start[2]), __uint_as_float(start[3])};
  mma_m16n8k16_bf16(d, left, right);
  store_floats(d, out);
}

// `a` holds four 8 x 8 matrices of 16-bit words; lane l points at the row that b[l] numbers.
#define LDMATRIX_WRAPPER(function, COUNT)                                            \
  WRAPPER(function##_wrapper) {                                                      \
    MINIALEX_SHARED(uint32_t, rows, [32][4]);                                        \
    for (int i = 0; i < 4; ++i) rows[threadIdx.x][i] = a[threadIdx.x * 4 + i];       \
    __syncthreads();                                                                 \
    uint32_t r[COUNT];                                                               \
    function(r, rows[b[threadIdx.x]]);                                               \
    store_fragment(r, out);                                                          \
  }
LDMATRIX_WRAPPER(ldmatrix_x4, 4)
LDMATRIX_WRAPPER(ldmatrix_x4_trans, 4)
LDMATRIX_WRAPPER(ldmatrix_x2, 2)
LDMATRIX_WRAPPER(ldmatrix_x2_trans, 2)

// C (16 x 8) = A (16 x 16, row by row) B (16 x 8, row by row) in bf16, through ldmatrix.
WRAPPER(tile_product_wrapper) {
  MINIALEX_SHARED(uint32_t, rows, [48][4]);                // 16 x 16 and 16 x 8 words of 16 bits, eight to a row
  const int lane = threadIdx.x;
  for (int i = lane; i < 128; i += 32) rows[i / 4][i % 4] = a[i];
  for (int i = lane; i < 64; i += 32) rows[32 + i / 4][i % 4] = b[i];
  __syncthreads();
  uint32_t left[4], right[2];
  float d[4] = {};
  ldmatrix_x4(left, rows[lane % 16 * 2 + lane / 16]);
  ldmatrix_x2_trans(right, rows[32 + lane % 16]);
  mma_m16n8k16_bf16(d, left, right);
  store_floats(d, out);
}

// out = a, where b says the copy is valid; the lanes read what others have copied.
WRAPPER(cp_async_16_wrapper) {
  MINIALEX_SHARED(uint32_t, tile, [32][4]);
  cp_async_16(tile[threadIdx.x], a + threadIdx.x * 4, b[threadIdx.x] != 0);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  MINIALEX_UNROLL for (int i = 0; i < 4; ++i) out[i * 32 + threadIdx.x] = tile[(i * 32 + threadIdx.x) / 4][threadIdx.x % 4];
}

WRAPPER(cp_async_4_wrapper) {
  MINIALEX_SHARED(uint32_t, tile, [32]);
  cp_async_4(&tile[threadIdx.x], a + threadIdx.x, b[threadIdx.x] != 0);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  out[threadIdx.x] = tile[31 - threadIdx.x];
}

// Three groups are under way; each wait lets one more stay away.  Stage s of `a` is 32 words; out is the running sum after each stage.
WRAPPER(cp_async_wait_wrapper) {
  MINIALEX_SHARED(uint32_t, stage, [3][32]);
  for (int s = 0; s < 3; ++s) {
    cp_async_4(&stage[s][threadIdx.x], a + s * 32 + threadIdx.x, true);
    cp_async_commit();
  }
  uint32_t sum = b[0];
  cp_async_wait<2>();
  out[threadIdx.x] = sum += stage[0][threadIdx.x];
  cp_async_wait<1>();
  out[32 + threadIdx.x] = sum += stage[1][threadIdx.x];
  cp_async_wait<0>();
  out[64 + threadIdx.x] = sum += stage[2][threadIdx.x];
}

// The sum of 128 words: a shuffle tree in each warp, then one over the warps; and the words of the warp's lanes turned by one.
WRAPPER(reduction_wrapper) {
  MINIALEX_SHARED(uint32_t, part, [4]);
  uint32_t sum = a[threadIdx.x];
  MINIALEX_UNROLL for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  out[1 + threadIdx.x] = __shfl_sync(0xffffffffu, a[threadIdx.x], (threadIdx.x + 1) % 32);
  out[129 + threadIdx.x] = __shfl_down_sync(0xffffffffu, a[threadIdx.x], 3, 8);
  out[257 + threadIdx.x] = __shfl_up_sync(0xffffffffu, a[threadIdx.x], 2, 16);
  if (threadIdx.x >= 32) return;
  sum = threadIdx.x < 4 ? part[threadIdx.x] : 0;
  MINIALEX_UNROLL for (int distance = 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (threadIdx.x == 0) out[0] = sum;
}

// A 16 x 16 tile turned over its diagonal, twice: the second turn writes where the first one read.
WRAPPER(transpose_wrapper) {
  MINIALEX_SHARED(uint32_t, tile, [16][17]);
  const int row = threadIdx.x / 16, column = threadIdx.x % 16;
  tile[row][column] = a[threadIdx.x];
  __syncthreads();
  const uint32_t turned = tile[column][row];
  __syncthreads();
  tile[row][column] = turned + b[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = turned;
  out[256 + threadIdx.x] = tile[column][row];
}

// Loops of different lengths that meet again before a vote: the steps of Collatz's rule from a[i] to 1.
WRAPPER(divergence_wrapper) {
  uint32_t value = a[threadIdx.x], steps = 0;
  while (value != 1 && steps < b[0]) {
    if (value % 2) value = 3 * value + 1;
    else value /= 2;
    ++steps;
  }
  out[threadIdx.x] = steps;
  out[32 + threadIdx.x] = __ballot_sync(0xffffffffu, steps > 10);
}

// Runs a kernel by its name on device 0; returns the message of what went wrong, or nullptr.
extern "C" const char* run_wrapper(const char* name, int threads, const void* a, size_t a_bytes, const void* b, size_t b_bytes, void* out,
                                   size_t out_bytes) {
  using Kernel = void (*)(const uint32_t*, const uint32_t*, uint32_t*);
#define NAMED(kernel) {#kernel, kernel}
  static const std::map<std::string, Kernel> kernels{
      NAMED(to_tf32_wrapper), NAMED(pack_bf16_wrapper), NAMED(bf16_wrapper), NAMED(mma_tf32_wrapper), NAMED(mma_bf16_wrapper),
      NAMED(ldmatrix_x4_wrapper), NAMED(ldmatrix_x4_trans_wrapper), NAMED(ldmatrix_x2_wrapper), NAMED(ldmatrix_x2_trans_wrapper),
      NAMED(tile_product_wrapper), NAMED(cp_async_16_wrapper), NAMED(cp_async_4_wrapper), NAMED(cp_async_wait_wrapper),
      NAMED(reduction_wrapper), NAMED(transpose_wrapper), NAMED(divergence_wrapper)};
  static std::string message;
  try {
    const Kernel kernel = kernels.at(name);
    minialex::runtime::set_device(0);
    const minialex::Stream stream = minialex::runtime::stream_create();
    void* memory[3] = {minialex::runtime::allocate(a_bytes), minialex::runtime::allocate(b_bytes), minialex::runtime::allocate(out_bytes)};
    minialex::runtime::copy(memory[0], a, a_bytes, stream);
    minialex::runtime::copy(memory[1], b, b_bytes, stream);
    minialex::runtime::copy(memory[2], out, out_bytes, stream);
    MINIALEX_LAUNCH(kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, stream, static_cast<const uint32_t*>(memory[0]),
                    static_cast<const uint32_t*>(memory[1]), static_cast<uint32_t*>(memory[2]));
    minialex::runtime::copy(out, memory[2], out_bytes, stream);
    minialex::runtime::stream_synchronize(stream);
    for (void* array : memory) minialex::runtime::release(array);
    minialex::runtime::stream_destroy(stream);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}
