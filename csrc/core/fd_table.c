/* fd_table.c: see fd_table.h. An array by number: the kernel gives the lowest number
 * that is free, so it is about as long as there are descriptors. */
#include "fd_table.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"
#include "slots.h"

#define CAPACITY_MIN 64u

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
