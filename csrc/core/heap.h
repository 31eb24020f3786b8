/* heap.h: a four-ary min-heap of (deadline, sequence).
 *
 * Four children a node, side by side in memory: half the levels of a binary heap, and
 * the children of one node share cache lines. Each entry says where its owner keeps the
 * entry's index, so that any entry can be removed. Knows nothing of timers or loops. */
#ifndef FDMUX_HEAP_H
#define FDMUX_HEAP_H

#include <stdint.h>

#define FDMUX__HEAP_NONE UINT32_MAX

struct fdmux__heap_entry {
    int64_t deadline_ns;
    uint64_t sequence; /* orders equal deadlines */
    uint32_t *index;   /* the owner's note of this entry's place */
    uint32_t owner;
};

struct fdmux__heap {
    struct fdmux__heap_entry *entries;
    uint32_t count;
    uint32_t capacity;
};

/* Make room for `count` entries, so that inserting them cannot fail. 0 or -ENOMEM. */
int fdmux__heap_reserve(struct fdmux__heap *heap, uint32_t count);
void fdmux__heap_free(struct fdmux__heap *heap);
/* O(log n); writes *entry.index. */
void fdmux__heap_insert(struct fdmux__heap *heap, struct fdmux__heap_entry entry);
/* O(log n); the entry's *index becomes FDMUX__HEAP_NONE. */
void fdmux__heap_remove(struct fdmux__heap *heap, uint32_t index);

#endif
