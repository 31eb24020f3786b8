/* slots.h: tables of items that never move, and the tokens that name them.
 *
 * A token is a kind (4 bits), a slot number (28 bits) and the slot's generation (31
 * bits); bit 63 is 0. A slot is live while its generation is odd: taking and killing it
 * each add one. So an old token finds nothing, until its slot has been reused 2^30
 * times. Generations start at a different number in each loop, so a token of another
 * loop finds nothing either.
 *
 * Memory is allocated in chunks that double in size and never move until the table is
 * freed: a thread may look up a token while another adds. Knows nothing about loops. */
#ifndef FDMUX_SLOTS_H
#define FDMUX_SLOTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FDMUX__SLOT_NONE UINT32_MAX
#define FDMUX__SLOT_BITS 28
#define FDMUX__SLOT_MAX ((UINT32_C(1) << FDMUX__SLOT_BITS) - 1)
#define FDMUX__CHUNK_COUNT 23 /* 64 + 128 + ... covers FDMUX__SLOT_MAX */
#define FDMUX__CHUNK_FIRST 64

enum {
    FDMUX__KIND_IO = 1,
    FDMUX__KIND_TIMER = 2,
    FDMUX__KIND_HOOK = 3,
    FDMUX__KIND_NODE = 15, /* never leaves the core */
};

/* For fields that the dispatching thread reads without the lock: a thread that loads a
 * value also sees everything written before that value was stored. */
#define fdmux__load(field) atomic_load_explicit(field, memory_order_acquire)
#define fdmux__store(field, value)                                                     \
    atomic_store_explicit(field, value, memory_order_release)

/* Every item of a table begins with this. */
struct fdmux__slot {
    _Atomic uint32_t generation;
    uint32_t next_free; /* the next slot of the free list or of the retired list */
};

static inline bool fdmux__generation_is_live(uint32_t generation)
{
    return (generation & 1) != 0;
}

static inline bool fdmux__slot_is_live(const struct fdmux__slot *slot)
{
    return fdmux__generation_is_live(fdmux__load(&slot->generation));
}

struct fdmux__slots {
    _Atomic(char *) chunks[FDMUX__CHUNK_COUNT];
    _Atomic uint32_t slot_count; /* ever used */
    uint32_t capacity;
    uint32_t first_free;
    uint32_t live_count;
    uint32_t first_generation;
    uint32_t kind;
    size_t item_size;
};

void fdmux__slots_init(struct fdmux__slots *slots, uint32_t kind, size_t item_size,
                       uint32_t seed);
void fdmux__slots_free(struct fdmux__slots *slots);

/* Take a slot: live, and zeroed except for its header. 0 or -ENOMEM. O(1). */
int fdmux__slots_take(struct fdmux__slots *slots, uint32_t *ret_index);
/* End the generation: its tokens find nothing from now on. The memory stays. */
void fdmux__slots_kill(struct fdmux__slots *slots, uint32_t index);
/* Let a killed slot be taken again. */
void fdmux__slots_recycle(struct fdmux__slots *slots, uint32_t index);

/* Give a live slot a new generation: its old tokens find nothing. */
void fdmux__slots_renew(struct fdmux__slots *slots, uint32_t index);

uint64_t fdmux__slots_token(const struct fdmux__slots *slots, uint32_t index);

static inline uint32_t fdmux__token_slot(uint64_t token)
{
    return (uint32_t)token & FDMUX__SLOT_MAX;
}

static inline uint32_t fdmux__token_kind(uint64_t token)
{
    return (uint32_t)token >> FDMUX__SLOT_BITS;
}

/* The item in slot `index`, which must be below slot_count. `item_size` is that of the
 * table, for callers that know it as a constant. */
static inline void *fdmux__slots_at_sized(const struct fdmux__slots *slots,
                                          uint32_t index, size_t item_size)
{
    /* Chunk k begins at slot 64 * (2^k - 1) and holds 64 * 2^k. */
    uint32_t shifted = index + FDMUX__CHUNK_FIRST;
    uint32_t chunk = (uint32_t)(31 - __builtin_clz(shifted)) - 6;
    uint32_t offset = shifted - ((uint32_t)FDMUX__CHUNK_FIRST << chunk);
    char *base = fdmux__load(&slots->chunks[chunk]);

    return base + (size_t)offset * item_size;
}

static inline void *fdmux__slots_at(const struct fdmux__slots *slots, uint32_t index)
{
    return fdmux__slots_at_sized(slots, index, slots->item_size);
}

/* The live item that `token` names, or NULL. */
static inline void *fdmux__slots_find(const struct fdmux__slots *slots, uint64_t token)
{
    uint32_t index = fdmux__token_slot(token);
    struct fdmux__slot *slot;

    if (fdmux__token_kind(token) != slots->kind ||
        index >= fdmux__load(&slots->slot_count))
        return NULL;
    slot = fdmux__slots_at(slots, index);
    if (!fdmux__generation_is_live((uint32_t)(token >> 32)) ||
        fdmux__load(&slot->generation) != token >> 32)
        return NULL;
    return slot;
}

#endif
