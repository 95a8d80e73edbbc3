/* fuzz.h -- the one function of every fuzz target; under libFuzzer it is called for made-up inputs, by replay.c for the
 * corpus. */
#ifndef QD_TESTS_FUZZ_FUZZ_H
#define QD_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Returns 0; a broken promise of the parser under test ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
