/* Owns the table of element types, the f16 conversions and the choice of a CPU level. Must not
 * know how any kernel works. */
#include "kernel/kernel.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

const struct kvg_type_info *kvg_type_info(uint32_t type)
{
    static const struct kvg_type_info info[KVG_TYPE_N] = {
        [KVG_F32] = {"f32", 1, 4},       [KVG_F16] = {"f16", 1, 2},
        [KVG_BF16] = {"bf16", 1, 2},     [KVG_Q4_0] = {"q4_0", 32, 18},
        [KVG_Q4_1] = {"q4_1", 32, 20},   [KVG_Q5_0] = {"q5_0", 32, 22},
        [KVG_Q5_1] = {"q5_1", 32, 24},   [KVG_Q8_0] = {"q8_0", 32, 34},
        [KVG_Q4_K] = {"q4_k", 256, 144}, [KVG_Q5_K] = {"q5_k", 256, 176},
        [KVG_Q6_K] = {"q6_k", 256, 210}, [KVG_IQ4_NL] = {"iq4_nl", 32, 18},
    };
    return type < KVG_TYPE_N && info[type].name ? &info[type] : NULL;
}

size_t kvg_type_row_bytes(enum kvg_type type, size_t n)
{
    const struct kvg_type_info *t = kvg_type_info(type);
    return t ? n / t->block_elems * t->block_bytes : 0;
}

float kvg_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu, u;
    float f;
    if (mag >= 0x7c00u) {
        u = 0x7f800000u | mag << 13;
        if (mag > 0x7c00u)
            u |= 0x400000u; /* a quiet NaN, as the hardware gives */
    } else {
        /* Read the bits as a float that is 2^112 too small; the product is exact, also for
         * subnormal halves. */
        u = mag << 13;
        memcpy(&f, &u, 4);
        f *= 0x1p112f;
        memcpy(&u, &f, 4);
    }
    u |= sign;
    memcpy(&f, &u, 4);
    return f;
}

uint16_t kvg_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    if (u >= 0x47800000u) /* 65536 and more */
        return sign | 0x7c00u;
    if (u < 0x38800000u) {
        /* Below 2^-14: adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded by the
         * addition itself. */
        float a;
        memcpy(&a, &u, 4);
        a += 0.5f;
        memcpy(&u, &a, 4);
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    u += 0xfffu + (u >> 13 & 1); /* to nearest even; a carry may reach the exponent, then inf */
    return (uint16_t)(sign | (u - 0x38000000u) >> 13);
}

static int level_has_avx2, level_has_avx512;

#if defined(__x86_64__)
/* The register state the operating system saves (XCR0). */
static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static void levels_detect(void)
{
    enum { XMM_YMM = 0x06, ZMM_AND_MASKS = 0xe6 };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return;
    int osxsave = c >> 27 & 1, fma = c >> 12 & 1, f16c = c >> 29 & 1;
    if (!osxsave || !fma || !f16c || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return;
    uint64_t state = xcr0();
    int avx2 = b >> 5 & 1;
    int avx512 = (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1); /* f dq bw vl */
    level_has_avx2 = avx2 && (state & XMM_YMM) == XMM_YMM;
    level_has_avx512 = level_has_avx2 && avx512 && (state & ZMM_AND_MASKS) == ZMM_AND_MASKS;
}
#else
static void levels_detect(void)
{
}
#endif

static const char *level_names[4]; /* slowest first, NULL-terminated */

static void levels_init(void)
{
    size_t n = 0;
    levels_detect();
    level_names[n++] = "ref";
#ifdef KVG_SIMD
    if (level_has_avx2 && kvg_kernels_avx2())
        level_names[n++] = "avx2";
    if (level_has_avx512 && kvg_kernels_avx512())
        level_names[n++] = "avx512";
#endif
    level_names[n] = NULL;
}

const char *const *kvg_kernels_levels(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, levels_init);
    return level_names;
}

static const struct kvg_kernels *level_table(const char *name)
{
#ifdef KVG_SIMD
    if (!strcmp(name, "avx2"))
        return kvg_kernels_avx2();
    if (!strcmp(name, "avx512"))
        return kvg_kernels_avx512();
#endif
    return strcmp(name, "ref") ? NULL : kvg_kernels_ref();
}

const struct kvg_kernels *kvg_kernels_get(const char *level)
{
    const struct kvg_kernels *best = NULL;
    for (const char *const *l = kvg_kernels_levels(); *l; l++)
        if (!strcmp(level, "auto") || !strcmp(level, *l))
            best = level_table(*l);
    return best;
}
