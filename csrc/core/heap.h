/* heap.h: a four-ary min-heap of (deadline, sequence).
 *
 * The four children of a node lie side by side in memory: the heap has half the levels
 * of a binary one, and siblings share cache lines. Each entry points to where its owner
 * keeps the entry's index, so any entry can be removed. Knows nothing about timers or
 * loops. */
#ifndef FDMUX_HEAP_H
#define FDMUX_HEAP_H

#include <stdint.h>

#define FDMUX__HEAP_NONE UINT32_MAX
/* A deadline that is never reached. */
#define FDMUX__NEVER INT64_MAX

struct fdmux__heap_entry {
    int64_t deadline_ns;
    uint64_t sequence; /* orders equal deadlines */
    uint32_t *index;   /* where the owner keeps this entry's index */
    uint32_t owner;
};

struct fdmux__heap {
    struct fdmux__heap_entry *entries;
    uint32_t count;
    uint32_t capacity;
};

/* Reserve room for `count` entries, so inserting them cannot fail. 0 or -ENOMEM. */
int fdmux__heap_reserve(struct fdmux__heap *heap, uint32_t count);
void fdmux__heap_free(struct fdmux__heap *heap);
/* O(log n); writes *entry.index. */
void fdmux__heap_insert(struct fdmux__heap *heap, struct fdmux__heap_entry entry);
/* O(log n); the entry's *index becomes FDMUX__HEAP_NONE. */
void fdmux__heap_remove(struct fdmux__heap *heap, uint32_t index);

/* The earliest deadline; FDMUX__NEVER if the heap is empty. */
static inline int64_t fdmux__heap_deadline(const struct fdmux__heap *heap)
{
    return heap->count == 0 ? FDMUX__NEVER : heap->entries[0].deadline_ns;
}

#endif
