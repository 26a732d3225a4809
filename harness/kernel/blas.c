/* Owns the calls into OpenBLAS. Must not know which kernel OpenBLAS should run (blas_probe.c) nor
 * what is multiplied. */
#include "kernel/blas.h"

#ifdef KVG_BLAS

#include <cblas.h>
#include <pthread.h>

/* One thread inside: a call then takes no lock but that of the buffer table, and our own threads
 * call it side by side. */
static void blas_init(void)
{
    openblas_set_num_threads(1);
}

static void gemm(enum CBLAS_TRANSPOSE trans_b, size_t m, size_t n, size_t k, const float *a,
                 size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, blas_init);
    if (m && n)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, trans_b, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                    a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

void kvg_gemm_nt(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                 size_t ldb, float beta, float *c, size_t ldc)
{
    gemm(CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void kvg_gemm_nn(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                 size_t ldb, float beta, float *c, size_t ldc)
{
    gemm(CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

int kvg_blas_present(void)
{
    return 1;
}

const char *kvg_blas_core(void)
{
    return openblas_get_corename();
}

const char *kvg_blas_version(void)
{
    return openblas_get_config();
}

#else

int kvg_blas_present(void)
{
    return 0;
}

const char *kvg_blas_core(void)
{
    return "none";
}

const char *kvg_blas_version(void)
{
    return "none";
}

#endif
