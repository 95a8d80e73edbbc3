/* fake_stream.h -- between the parts of the double of the CUDA runtime, without NVIDIA's headers: the launch shim has
 * types of the same names. */
#ifndef QD_TESTS_FAKE_STREAM_H
#define QD_TESTS_FAKE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

/* A stream works between these: device memory is accessible. */
void fake_work_begins(void);
void fake_work_ends(void);
void fake_copied(bool up, size_t bytes);
bool fake_is_pinned(const void *p, size_t bytes);

bool fake_fails(void); /* counts a call */
_Noreturn void fake_misuse(const char *what);
/* fake_push() on a cudaStream_t. */
void fake_push_on(void *stream, void (*fn)(void *arg), void *arg);

#endif
