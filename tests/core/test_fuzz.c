/* test_fuzz.c: replays the corpus of tests/fuzz, and random bytes, so that bugs found
 * by fuzzing stay fixed. */
#include "check.h"

#include <dirent.h>
#include <stdio.h>

#include "../fuzz/fuzz_core.h"

enum { INPUT_MAX = 4096, RANDOM_INPUTS = 2000 };

static void replay(const char *name)
{
    static uint8_t bytes[INPUT_MAX];
    char path[512];
    FILE *file;
    size_t size;

    CHECK(snprintf(path, sizeof path, "%s/%s", FDMUX_CORPUS, name) < (int)sizeof path);
    file = fopen(path, "rb");
    CHECK(file != NULL);
    size = fread(bytes, 1, sizeof bytes, file);
    CHECK_EQ(fclose(file), 0);
    (void)LLVMFuzzerTestOneInput(bytes, size);
}

UNIT_TEST(every_input_of_the_corpus_runs_clean)
{
    DIR *corpus = opendir(FDMUX_CORPUS);
    const struct dirent *entry;
    int count = 0;

    CHECK(corpus != NULL);
    while ((entry = readdir(corpus)) != NULL)
        if (entry->d_name[0] != '.') {
            replay(entry->d_name);
            count++;
        }
    CHECK(count > 0);
    CHECK_EQ(closedir(corpus), 0);
}

UNIT_TEST(random_inputs_run_clean)
{
    uint64_t seed = 20;

    for (int i = 0; i < RANDOM_INPUTS; i++) {
        uint8_t bytes[256];
        size_t size = check_random(&seed) % sizeof bytes;

        for (size_t k = 0; k < size; k++)
            bytes[k] = (uint8_t)check_random(&seed);
        (void)LLVMFuzzerTestOneInput(bytes, size);
    }
}
