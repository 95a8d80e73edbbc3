/* fake_launch.c -- kernels on the streams of the double: they run on the launch shim, one at a time. */
#include "tests/shim/cuda/fake_stream.h"
#include "tests/shim/cuda_shim.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    LAUNCH_FAILURE = 719 /* cudaErrorLaunchFailure */
};

typedef struct launch {
    void (*kernel)(const void *params);
    size_t bytes;
    dim3 grid, block;
    _Alignas(16) unsigned char params[];
} launch;

static void run(void *arg)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    launch *l = arg;
    (void)pthread_mutex_lock(&one);
    if (shim_launch(l->kernel, l->params, l->bytes, l->grid, l->block) != 0) fake_misuse("a grid that no GPU takes");
    (void)pthread_mutex_unlock(&one);
    free(l);
}

static int queue(void *stream, void (*kernel)(const void *params), const void *params, size_t bytes, dim3 grid,
                 dim3 block)
{
    if (stream == NULL) fake_misuse("a launch on the default stream");
    if (fake_fails()) return LAUNCH_FAILURE;
    launch *l = malloc(sizeof *l + bytes);
    if (l == NULL) abort();
    *l = (launch){kernel, bytes, grid, block};
    memcpy(l->params, params, bytes);
    fake_push_on(stream, run, l);
    return 0;
}

__attribute__((constructor)) static void take_over(void)
{
    shim_stream_launch = queue;
}
