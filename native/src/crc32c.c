/* CRC-32C (Castagnoli), the checksum of Kafka batches and of every file of this project.
 *
 * Two ways to the same value. Hardware: three lanes of the SSE4.2 crc32 instruction hide its
 * latency; carry-less multiplication joins them (Gopal and others, "Fast CRC Computation for
 * iSCSI Polynomial Using CRC32 Instruction", Intel 2011). Portable: slicing by 8. The way is
 * chosen once, when the module is loaded. */
#include "core.h"

#define POLYNOMIAL 0x82f63b78u

typedef uint32_t crc_function(uint32_t crc, const uint8_t *data, size_t size);

static uint32_t slices[8][256];

static inline uint32_t crc_byte(uint32_t crc, uint8_t byte)
{
    return (crc >> 8) ^ slices[0][(crc ^ byte) & 0xff];
}

static void slices_fill(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1u) ? POLYNOMIAL : 0u);
        slices[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int slice = 1; slice < 8; slice++)
            slices[slice][byte] = crc_byte(slices[slice - 1][byte], 0);
}

static uint32_t crc_portable(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        word ^= crc;
        crc = 0;
        for (int slice = 7; slice >= 0; slice--, word >>= 8)
            crc ^= slices[slice][word & 0xff];
    }
    for (; size > 0; size--, data++)
        crc = crc_byte(crc, *data);
    return ~crc;
}

#define LANE_LONG 2048u
#define LANE_SHORT 256u

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

#define HARDWARE __attribute__((target("sse4.2,pclmul")))

/* x^(8 * shift - 33) mod P, bit-reflected: multiplying a lane's CRC by it and running the product
 * through crc32 (which multiplies by x^32; the reflected product brings one x more) moves the CRC
 * over `shift` bytes of zeros. */
#define LONG_BY_TWO 0x82f89c77u
#define LONG_BY_ONE 0xa51b6135u
#define SHORT_BY_TWO 0xdd7e3b0cu
#define SHORT_BY_ONE 0xb9e02b86u

HARDWARE static inline uint64_t load(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

HARDWARE static inline uint64_t shifted(uint64_t crc, uint32_t constant)
{
    __m128i factor = _mm_cvtsi64_si128((int64_t)constant);
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), factor, 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* Run three neighbouring lanes at once and join them; returns the CRC after 3 * lane bytes. */
HARDWARE static inline uint64_t lanes(uint64_t crc, const uint8_t *data, size_t lane,
                                      uint32_t by_two, uint32_t by_one)
{
    uint64_t second = 0, third = 0;
    for (size_t at = 0; at < lane; at += 8) {
        crc = _mm_crc32_u64(crc, load(data + at));
        second = _mm_crc32_u64(second, load(data + lane + at));
        third = _mm_crc32_u64(third, load(data + 2 * lane + at));
    }
    return shifted(crc, by_two) ^ shifted(second, by_one) ^ third;
}

HARDWARE static uint32_t crc_hardware(uint32_t start, const uint8_t *data, size_t size)
{
    uint64_t crc = (uint32_t)~start;
    for (; size >= 3 * LANE_LONG; size -= 3 * LANE_LONG, data += 3 * LANE_LONG)
        crc = lanes(crc, data, LANE_LONG, LONG_BY_TWO, LONG_BY_ONE);
    for (; size >= 3 * LANE_SHORT; size -= 3 * LANE_SHORT, data += 3 * LANE_SHORT)
        crc = lanes(crc, data, LANE_SHORT, SHORT_BY_TWO, SHORT_BY_ONE);
    for (; size >= 8; size -= 8, data += 8)
        crc = _mm_crc32_u64(crc, load(data));
    uint32_t tail = (uint32_t)crc;
    for (; size > 0; size--, data++)
        tail = _mm_crc32_u8(tail, *data);
    return ~tail;
}

static bool hardware_present(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}
#else
static bool hardware_present(void) { return false; }
#define crc_hardware crc_portable
#endif

static crc_function *chosen = crc_portable;

__attribute__((constructor)) static void choose(void)
{
    slices_fill();
    chosen = hardware_present() ? crc_hardware : crc_portable;
}

int cl_crc32c_select(int portable)
{
    chosen = !portable && hardware_present() ? crc_hardware : crc_portable;
    return chosen == crc_portable;
}

uint32_t cl_crc32c(uint32_t crc, const void *data, size_t size)
{
    assert(data != NULL || size == 0);
    return chosen(crc, data, size);
}

uint32_t cl_crc32c_copy(uint32_t crc, uint8_t *to, const uint8_t *from, size_t size)
{
    assert(to != NULL);
    assert(from != NULL || size == 0);
    const size_t piece_max = 3 * LANE_LONG; /* still in the first cache when summed */
    while (size > 0) {
        size_t piece = size < piece_max ? size : piece_max;
        memcpy(to, from, piece);
        crc = chosen(crc, to, piece);
        to += piece;
        from += piece;
        size -= piece;
    }
    return crc;
}
