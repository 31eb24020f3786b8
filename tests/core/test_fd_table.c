/* test_fd_table.c: the nodes of descriptors on Windows, against an array. Elsewhere the
 * table is an array itself. */
#include "fixtures.h"

#include "fd_table.h"
#include "slots.h"

enum { NUMBERS = 3000, STEPS = 200000 };

/* Handles, some of them large; many would share a place of the smallest table. */
static fdmux_fd number_at(uint32_t index)
{
    return (fdmux_fd)(4 * (index % 3 == 0 ? index * 4096 : index + 1));
}

AFD_TEST(table_has_what_was_set_and_not_cleared)
{
    static uint32_t slots[NUMBERS]; /* slot + 1; 0: none */
    struct fdmux__fd_table table = {0};
    struct channel channel = open_channel();
    uint64_t state = 7;
    uint32_t count = 0;

    for (int i = 0; i < STEPS; i++) {
        /* Most of the time among few, so that the table shrinks to holes as well. */
        uint32_t index = check_random(&state) % (i % 7 == 0 ? NUMBERS : 200);
        fdmux_fd fd = number_at(index);

        CHECK_EQ(fdmux__fd_table_find(&table, fd),
                 slots[index] == 0 ? FDMUX__SLOT_NONE : slots[index] - 1);
        if (slots[index] == 0) {
            /* It makes room for any number, but a wrong one must not cost it. */
            CHECK_EQ(fdmux__fd_table_reserve(&table, (fdmux_fd)channel.read_fd), 0);
            fdmux__fd_table_set(&table, fd, index);
            slots[index] = index + 1;
            count++;
        } else {
            fdmux__fd_table_clear(&table, fd);
            slots[index] = 0;
            count--;
        }
        CHECK_EQ(fdmux__fd_table_count(&table), count);
    }
    for (uint32_t i = 0; i < NUMBERS; i++)
        CHECK_EQ(fdmux__fd_table_find(&table, number_at(i)),
                 slots[i] == 0 ? FDMUX__SLOT_NONE : slots[i] - 1);
    fdmux__fd_table_free(&table);
    close_channel(&channel);
}
