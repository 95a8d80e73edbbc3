/* fake_stream.h -- between the memory and the streams of the double of the CUDA runtime. */
#ifndef QD_TESTS_FAKE_STREAM_H
#define QD_TESTS_FAKE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

/* A stream works between these: device memory is accessible. */
void fake_work_begins(void);
void fake_work_ends(void);
bool fake_is_pinned(const void *p, size_t bytes);

#endif
