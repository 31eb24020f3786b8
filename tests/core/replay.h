/* replay.h: gives a fuzzer of tests/fuzz the inputs of a folder, or random ones. */
#ifndef FDMUX_TESTS_REPLAY_H
#define FDMUX_TESTS_REPLAY_H

#include <stddef.h>
#include <stdint.h>

typedef int (*replay_fn)(const uint8_t *data, size_t size);

/* Run every input of the folder `corpus`; there must be one. */
void replay_corpus(replay_fn fn, const char *corpus);
/* Run `count` inputs of up to 255 bytes; the same for the same seed. */
void replay_random(replay_fn fn, uint64_t seed, int count);

#endif
