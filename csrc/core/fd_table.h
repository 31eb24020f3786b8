/* fd_table.h: which node a descriptor has. The only part that knows what kind of number
 * a descriptor is. */
#ifndef FDMUX_FD_TABLE_H
#define FDMUX_FD_TABLE_H

#include "fdmux.h"

#include <stdint.h>

/* Zeros are an empty table. Used under the loop's lock only, so it may move. */
#if defined(_WIN32)
struct fdmux__fd_entry {
    fdmux_fd fd;
    uint32_t slot; /* + 1; 0: none */
};

struct fdmux__fd_table {
    struct fdmux__fd_entry *slots;
    uint32_t capacity;
    uint32_t count;
};
#else
struct fdmux__fd_table {
    uint32_t *slots; /* slot + 1; 0: none */
    uint32_t capacity;
};
#endif

/* The slot of the descriptor's node, or FDMUX__SLOT_NONE. `fd` is not negative. */
uint32_t fdmux__fd_table_find(const struct fdmux__fd_table *table, fdmux_fd fd);
/* Make room, so that `set` cannot fail. 0 or -ENOMEM; -EBADF for a number that is not
 * open and would make the table larger. */
int fdmux__fd_table_reserve(struct fdmux__fd_table *table, fdmux_fd fd);
void fdmux__fd_table_set(struct fdmux__fd_table *table, fdmux_fd fd, uint32_t slot);
void fdmux__fd_table_clear(struct fdmux__fd_table *table, fdmux_fd fd);
/* How many descriptors have a node. At most O(capacity). */
uint32_t fdmux__fd_table_count(const struct fdmux__fd_table *table);
void fdmux__fd_table_free(struct fdmux__fd_table *table);

#endif
