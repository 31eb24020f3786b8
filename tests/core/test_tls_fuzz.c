/* test_tls_fuzz.c: sessions that random bytes disturb; see tests/fuzz/fuzz_tls.c. */
#include "check.h"

#include "../fuzz/fuzz_core.h"

enum { RANDOM_INPUTS = 1500 };

UNIT_TEST(random_inputs_run_clean)
{
    uint64_t seed = 21;

    for (int i = 0; i < RANDOM_INPUTS; i++) {
        uint8_t bytes[200];
        size_t size = check_random(&seed) % sizeof bytes;

        for (size_t k = 0; k < size; k++)
            bytes[k] = (uint8_t)check_random(&seed);
        (void)LLVMFuzzerTestOneInput(bytes, size);
    }
}
