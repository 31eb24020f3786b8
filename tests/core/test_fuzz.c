/* test_fuzz.c: replays the corpus of tests/fuzz, and random bytes, so that bugs found
 * by fuzzing stay fixed. */
#include "check.h"
#include "replay.h"

#include "../fuzz/fuzz_core.h"

enum { RANDOM_INPUTS = 2000 };

UNIT_TEST(every_input_of_the_corpus_runs_clean)
{
    replay_corpus(LLVMFuzzerTestOneInput, FDMUX_CORPUS);
}

UNIT_TEST(random_inputs_run_clean)
{
    replay_random(LLVMFuzzerTestOneInput, 20, RANDOM_INPUTS);
}
