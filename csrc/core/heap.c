/* heap.c: the four-ary heap of heap.h. */
#include "heap.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../platform/sys.h"

#define CHILDREN 4

int fdmux__heap_reserve(struct fdmux__heap *heap, uint32_t count)
{
    uint32_t capacity = heap->capacity == 0 ? 16 : heap->capacity;
    struct fdmux__heap_entry *entries;

    if (count <= heap->capacity)
        return 0;
    while (capacity < count)
        capacity *= 2;
    entries = fdmux__sys_realloc(heap->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return -ENOMEM;
    heap->entries = entries;
    heap->capacity = capacity;
    return 0;
}

void fdmux__heap_free(struct fdmux__heap *heap)
{
    fdmux__sys_free(heap->entries);
    memset(heap, 0, sizeof *heap);
}

static bool is_before(const struct fdmux__heap_entry *a,
                      const struct fdmux__heap_entry *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns
                                            : a->sequence < b->sequence;
}

static void place(struct fdmux__heap *heap, uint32_t index,
                  struct fdmux__heap_entry entry)
{
    heap->entries[index] = entry;
    *entry.index = index;
}

static void sift_up(struct fdmux__heap *heap, uint32_t index,
                    struct fdmux__heap_entry entry)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / CHILDREN;

        if (!is_before(&entry, &heap->entries[parent]))
            break;
        place(heap, index, heap->entries[parent]);
        index = parent;
    }
    place(heap, index, entry);
}

/* The earliest child of `index`, which has at least one. */
static uint32_t earliest_child(const struct fdmux__heap *heap, uint32_t index)
{
    uint32_t first = index * CHILDREN + 1;
    uint32_t end = heap->count - first < CHILDREN ? heap->count : first + CHILDREN;
    uint32_t best = first;

    for (uint32_t child = first + 1; child < end; child++) {
        if (is_before(&heap->entries[child], &heap->entries[best]))
            best = child;
    }
    return best;
}

static void sift_down(struct fdmux__heap *heap, uint32_t index,
                      struct fdmux__heap_entry entry)
{
    while (index * CHILDREN + 1 < heap->count) {
        uint32_t child = earliest_child(heap, index);

        if (!is_before(&heap->entries[child], &entry))
            break;
        place(heap, index, heap->entries[child]);
        index = child;
    }
    place(heap, index, entry);
}

void fdmux__heap_insert(struct fdmux__heap *heap, struct fdmux__heap_entry entry)
{
    sift_up(heap, heap->count++, entry);
}

void fdmux__heap_remove(struct fdmux__heap *heap, uint32_t index)
{
    struct fdmux__heap_entry last;

    *heap->entries[index].index = FDMUX__HEAP_NONE;
    last = heap->entries[--heap->count];
    if (index == heap->count)
        return;
    if (index > 0 && is_before(&last, &heap->entries[(index - 1) / CHILDREN]))
        sift_up(heap, index, last);
    else
        sift_down(heap, index, last);
}
