/* The messages of the load generators: windows into one random pattern.
 *
 * This gives 4,096 different messages without writing a byte, and a swapped, late or
 * duplicate echo does not match. */
#ifndef FDMUX_BENCHMARKS_PATTERN_H
#define FDMUX_BENCHMARKS_PATTERN_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { PATTERN_WINDOW_COUNT = 4096 };

/* Returns the pattern for messages of that size, which the caller frees; or NULL. */
static inline unsigned char *pattern_create(size_t message_size)
{
    size_t size = message_size + PATTERN_WINDOW_COUNT;
    unsigned char *pattern = malloc(size);
    uint64_t state = 0x9e3779b97f4a7c15U; /* any odd seed will do */

    for (size_t i = 0; pattern != NULL && i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = (unsigned char)(state >> 32);
    }
    return pattern;
}

/* Returns the message with this number on the connection with this index. */
static inline const unsigned char *pattern_message(const unsigned char *pattern,
                                                   size_t index, uint64_t number)
{
    return pattern + (index * 977 + number * 61) % PATTERN_WINDOW_COUNT;
}

#endif
