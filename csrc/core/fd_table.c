/* fd_table.c: see fd_table.h.
 *
 * An array by number: the kernel gives the lowest number that is free, so it is about
 * as long as there are descriptors. Windows has handles, multiples of 4 that may be
 * large: there it is a hash with open addressing. An entry is at its own place or after
 * it, without a gap between. */
#include "fd_table.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"
#include "slots.h"

#define CAPACITY_MIN 64u /* a power of two, as every capacity */

#if defined(_WIN32)

static uint32_t next_place(const struct fdmux__fd_table *table, uint32_t place)
{
    return (place + 1) & (table->capacity - 1);
}

/* 2^32 / golden ratio: its upper bits depend on all bits of the number. */
static uint32_t own_place(const struct fdmux__fd_table *table, fdmux_fd fd)
{
    uint64_t number = (uint64_t)fd >> 2;
    uint32_t hash = (uint32_t)(number ^ number >> 32) * UINT32_C(0x9e3779b1);

    return (hash ^ hash >> 16) & (table->capacity - 1);
}

/* The place of the descriptor, or the free one where it belongs. At least a quarter of
 * the places is free. */
static uint32_t place_of(const struct fdmux__fd_table *table, fdmux_fd fd)
{
    uint32_t place = own_place(table, fd);

    while (table->slots[place].slot != 0 && table->slots[place].fd != fd)
        place = next_place(table, place);
    return place;
}

uint32_t fdmux__fd_table_find(const struct fdmux__fd_table *table, fdmux_fd fd)
{
    uint32_t slot = table->capacity == 0 ? 0 : table->slots[place_of(table, fd)].slot;

    return slot == 0 ? FDMUX__SLOT_NONE : slot - 1;
}

int fdmux__fd_table_reserve(struct fdmux__fd_table *table, fdmux_fd fd)
{
    struct fdmux__fd_table grown = {.count = table->count};

    if ((table->count + 1) * 4 <= table->capacity * 3)
        return 0;
    if (fdmux__sys_check_fd(fd) < 0)
        return -EBADF;
    grown.capacity = table->capacity == 0 ? CAPACITY_MIN : table->capacity * 2;
    grown.slots = fdmux__sys_calloc(grown.capacity, sizeof *grown.slots);
    if (grown.slots == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].slot != 0)
            grown.slots[place_of(&grown, table->slots[i].fd)] = table->slots[i];
    }
    fdmux__sys_free(table->slots);
    *table = grown;
    return 0;
}

void fdmux__fd_table_set(struct fdmux__fd_table *table, fdmux_fd fd, uint32_t slot)
{
    struct fdmux__fd_entry *entry = &table->slots[place_of(table, fd)];

    table->count += entry->slot == 0;
    *entry = (struct fdmux__fd_entry){.fd = fd, .slot = slot + 1};
}

/* May an entry at `place`, whose own place is `own`, move to the free place before it?
 * Not if that lies before its own place. */
static bool may_move(const struct fdmux__fd_table *table, uint32_t free_place,
                     uint32_t place, uint32_t own)
{
    uint32_t mask = table->capacity - 1;

    return ((place - own) & mask) >= ((place - free_place) & mask);
}

void fdmux__fd_table_clear(struct fdmux__fd_table *table, fdmux_fd fd)
{
    uint32_t free_place = place_of(table, fd);
    uint32_t place = next_place(table, free_place);

    if (table->slots[free_place].slot == 0)
        return;
    for (; table->slots[place].slot != 0; place = next_place(table, place)) {
        if (may_move(table, free_place, place,
                     own_place(table, table->slots[place].fd))) {
            table->slots[free_place] = table->slots[place];
            free_place = place;
        }
    }
    table->slots[free_place].slot = 0;
    table->count--;
}

uint32_t fdmux__fd_table_count(const struct fdmux__fd_table *table)
{
    return table->count;
}

void fdmux__fd_table_free(struct fdmux__fd_table *table)
{
    fdmux__sys_free(table->slots);
}

#else

uint32_t fdmux__fd_table_find(const struct fdmux__fd_table *table, fdmux_fd fd)
{
    if ((uint32_t)fd >= table->capacity || table->slots[fd] == 0)
        return FDMUX__SLOT_NONE;
    return table->slots[fd] - 1;
}

int fdmux__fd_table_reserve(struct fdmux__fd_table *table, fdmux_fd fd)
{
    uint32_t capacity = table->capacity == 0 ? CAPACITY_MIN : table->capacity;
    uint32_t *slots;

    if ((uint32_t)fd < table->capacity)
        return 0;
    /* Without this check a wrong number would cost a table of its size. */
    if (fdmux__sys_check_fd(fd) < 0)
        return -EBADF;
    while (capacity <= (uint32_t)fd)
        capacity *= 2;
    slots = fdmux__sys_realloc(table->slots, capacity * sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    memset(slots + table->capacity, 0, (capacity - table->capacity) * sizeof *slots);
    table->slots = slots;
    table->capacity = capacity;
    return 0;
}

void fdmux__fd_table_set(struct fdmux__fd_table *table, fdmux_fd fd, uint32_t slot)
{
    table->slots[fd] = slot + 1;
}

void fdmux__fd_table_clear(struct fdmux__fd_table *table, fdmux_fd fd)
{
    table->slots[fd] = 0;
}

uint32_t fdmux__fd_table_count(const struct fdmux__fd_table *table)
{
    uint32_t count = 0;

    for (uint32_t fd = 0; fd < table->capacity; fd++)
        count += table->slots[fd] != 0;
    return count;
}

void fdmux__fd_table_free(struct fdmux__fd_table *table)
{
    fdmux__sys_free(table->slots);
}

#endif
