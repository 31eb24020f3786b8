/* replay.c: see replay.h. */
#include "replay.h"

#include <dirent.h>
#include <stdio.h>

#include "check.h"

enum { INPUT_MAX = 4096 };

static void replay(replay_fn fn, const char *corpus, const char *name)
{
    static uint8_t bytes[INPUT_MAX];
    char path[512];
    FILE *file;
    size_t size;

    CHECK(snprintf(path, sizeof path, "%s/%s", corpus, name) < (int)sizeof path);
    file = fopen(path, "rb");
    CHECK(file != NULL);
    size = fread(bytes, 1, sizeof bytes, file);
    CHECK_EQ(fclose(file), 0);
    (void)fn(bytes, size);
}

void replay_corpus(replay_fn fn, const char *corpus)
{
    DIR *folder = opendir(corpus);
    const struct dirent *entry;
    int count = 0;

    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.') {
            replay(fn, corpus, entry->d_name);
            count++;
        }
    CHECK(count > 0);
    CHECK_EQ(closedir(folder), 0);
}

void replay_random(replay_fn fn, uint64_t seed, int count)
{
    for (int i = 0; i < count; i++) {
        uint8_t bytes[256];
        size_t size = check_random(&seed) % sizeof bytes;

        for (size_t k = 0; k < size; k++)
            bytes[k] = (uint8_t)check_random(&seed);
        (void)fn(bytes, size);
    }
}
