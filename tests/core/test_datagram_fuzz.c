/* test_datagram_fuzz.c: replays what tests/fuzz/fuzz_datagram.c has found, and random
 * bytes. */
#include "check.h"
#include "replay.h"

#include "../fuzz/fuzz_core.h"

enum { RANDOM_INPUTS = 500 };

UNIT_TEST(every_input_of_the_corpus_runs_clean)
{
    replay_corpus(LLVMFuzzerTestOneInput, FDMUX_CORPUS);
}

UNIT_TEST(random_inputs_run_clean)
{
    replay_random(LLVMFuzzerTestOneInput, 22, RANDOM_INPUTS);
}
