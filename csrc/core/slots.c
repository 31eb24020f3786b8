/* slots.c: slot tables (slots.h). Callers hold the lock of the table's owner. */
#include "slots.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

#define GENERATION_MASK UINT32_C(0x7fffffff)

void fdmux__slots_init(struct fdmux__slots *slots, uint32_t kind, size_t item_size,
                       uint32_t seed)
{
    memset(slots, 0, sizeof *slots);
    slots->kind = kind;
    slots->item_size = item_size;
    slots->first_free = FDMUX__SLOT_NONE;
    slots->first_generation = seed & GENERATION_MASK & ~UINT32_C(1);
}

void fdmux__slots_free(struct fdmux__slots *slots)
{
    for (int i = 0; i < FDMUX__CHUNK_COUNT; i++) {
        fdmux__sys_free(fdmux__load(&slots->chunks[i]));
        fdmux__store(&slots->chunks[i], NULL);
    }
    fdmux__store(&slots->slot_count, 0);
    slots->capacity = 0;
    slots->first_free = FDMUX__SLOT_NONE;
}

static struct fdmux__slot *slot_at(struct fdmux__slots *slots, uint32_t index)
{
    return fdmux__slots_at(slots, index);
}

/* Allocate the next chunk. */
static int add_chunk(struct fdmux__slots *slots)
{
    uint32_t size = slots->capacity + FDMUX__CHUNK_FIRST;
    int chunk = 31 - __builtin_clz(size) - 6;
    char *memory;

    if (chunk >= FDMUX__CHUNK_COUNT - 1)
        return -ENOMEM;
    memory = fdmux__sys_calloc(size, slots->item_size);
    if (memory == NULL)
        return -ENOMEM;
    atomic_store_explicit(&slots->chunks[chunk], memory, memory_order_release);
    slots->capacity += size;
    return 0;
}

static void add_generation(struct fdmux__slot *slot)
{
    uint32_t generation = atomic_load_explicit(&slot->generation, memory_order_relaxed);

    atomic_store_explicit(&slot->generation, (generation + 1) & GENERATION_MASK,
                          memory_order_release);
}

int fdmux__slots_take(struct fdmux__slots *slots, uint32_t *ret_index)
{
    uint32_t index = slots->first_free;
    struct fdmux__slot *slot;

    if (index != FDMUX__SLOT_NONE) {
        slot = slot_at(slots, index);
        slots->first_free = slot->next_free;
    } else {
        index = atomic_load_explicit(&slots->slot_count, memory_order_relaxed);
        if (index == slots->capacity && add_chunk(slots) < 0)
            return -ENOMEM;
        slot = slot_at(slots, index);
        atomic_store_explicit(&slot->generation, slots->first_generation,
                              memory_order_relaxed);
        atomic_store_explicit(&slots->slot_count, index + 1, memory_order_release);
    }
    memset(slot + 1, 0, slots->item_size - sizeof *slot);
    slot->next_free = FDMUX__SLOT_NONE;
    add_generation(slot);
    slots->live_count++;
    *ret_index = index;
    return 0;
}

void fdmux__slots_kill(struct fdmux__slots *slots, uint32_t index)
{
    add_generation(slot_at(slots, index));
    slots->live_count--;
}

void fdmux__slots_recycle(struct fdmux__slots *slots, uint32_t index)
{
    struct fdmux__slot *slot = slot_at(slots, index);

    slot->next_free = slots->first_free;
    slots->first_free = index;
}

void fdmux__slots_renew(struct fdmux__slots *slots, uint32_t index)
{
    add_generation(slot_at(slots, index));
    add_generation(slot_at(slots, index));
}

uint64_t fdmux__slots_token(const struct fdmux__slots *slots, uint32_t index)
{
    struct fdmux__slot *slot = fdmux__slots_at(slots, index);
    uint64_t generation = atomic_load_explicit(&slot->generation, memory_order_relaxed);

    return generation << 32 | slots->kind << FDMUX__SLOT_BITS | index;
}
