/* test_slots.c: slot tables and their tokens, without a loop. */
#include "check.h"

#include "slots.h"

struct item {
    struct fdmux__slot slot;
    uint32_t value;
};

static struct fdmux__slots open_table(void)
{
    struct fdmux__slots slots;

    fdmux__slots_init(&slots, FDMUX__KIND_TIMER, sizeof(struct item), 77);
    return slots;
}

static uint64_t take(struct fdmux__slots *slots)
{
    uint32_t index = 0;

    CHECK_EQ(fdmux__slots_take(slots, &index), 0);
    return fdmux__slots_token(slots, index);
}

UNIT_TEST(token_finds_its_item_until_killed)
{
    struct fdmux__slots slots = open_table();
    uint64_t token = take(&slots);
    struct item *item = fdmux__slots_find(&slots, token);

    CHECK(item != NULL);
    CHECK_EQ(slots.live_count, 1);
    fdmux__slots_kill(&slots, fdmux__token_slot(token));
    CHECK(fdmux__slots_find(&slots, token) == NULL);
    CHECK_EQ(slots.live_count, 0);
    fdmux__slots_free(&slots);
}

UNIT_TEST(token_is_a_positive_int64)
{
    struct fdmux__slots slots = open_table();

    CHECK((int64_t)take(&slots) > 0);
    fdmux__slots_free(&slots);
}

/* A loop chooses its first generation, and each use of a slot adds two to it. */
UNIT_TEST(token_is_never_zero_whatever_the_generation)
{
    const uint32_t seeds[] = {0,         1, INT32_MAX - 2, INT32_MAX, UINT32_MAX - 1,
                              UINT32_MAX};

    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        struct fdmux__slots slots;

        fdmux__slots_init(&slots, FDMUX__KIND_IO, sizeof(struct item), seeds[i]);
        for (int use = 0; use < 5; use++) {
            uint64_t token = take(&slots);

            CHECK((int64_t)token > 0);
            CHECK(fdmux__slots_find(&slots, token) != NULL);
            fdmux__slots_kill(&slots, fdmux__token_slot(token));
            fdmux__slots_recycle(&slots, fdmux__token_slot(token));
        }
        CHECK(fdmux__slots_find(&slots, 0) == NULL);
        fdmux__slots_free(&slots);
    }
}

UNIT_TEST(recycled_slot_has_another_token_and_is_zeroed)
{
    struct fdmux__slots slots = open_table();
    uint64_t first = take(&slots);
    uint64_t second;

    ((struct item *)fdmux__slots_find(&slots, first))->value = 9;
    fdmux__slots_kill(&slots, fdmux__token_slot(first));
    fdmux__slots_recycle(&slots, fdmux__token_slot(first));
    second = take(&slots);
    CHECK_EQ(fdmux__token_slot(second), fdmux__token_slot(first));
    CHECK(second != first);
    CHECK(fdmux__slots_find(&slots, first) == NULL);
    CHECK_EQ(((struct item *)fdmux__slots_find(&slots, second))->value, 0);
    fdmux__slots_free(&slots);
}

UNIT_TEST(killed_slot_is_not_taken_before_it_is_recycled)
{
    struct fdmux__slots slots = open_table();
    uint64_t first = take(&slots);

    fdmux__slots_kill(&slots, fdmux__token_slot(first));
    CHECK(fdmux__token_slot(take(&slots)) != fdmux__token_slot(first));
    fdmux__slots_free(&slots);
}

UNIT_TEST(items_never_move_while_the_table_grows)
{
    enum { COUNT = 5000 };
    static uint64_t tokens[COUNT];
    static void *places[COUNT];
    struct fdmux__slots slots = open_table();

    for (int i = 0; i < COUNT; i++) {
        tokens[i] = take(&slots);
        places[i] = fdmux__slots_find(&slots, tokens[i]);
        CHECK_EQ(fdmux__token_slot(tokens[i]), i);
    }
    for (int i = 0; i < COUNT; i++)
        CHECK(fdmux__slots_find(&slots, tokens[i]) == places[i]);
    fdmux__slots_free(&slots);
}

UNIT_TEST(token_of_another_kind_or_number_finds_nothing)
{
    struct fdmux__slots slots = open_table();
    uint64_t token = take(&slots);

    for (int bit = 0; bit < 64; bit++)
        CHECK(fdmux__slots_find(&slots, token ^ UINT64_C(1) << bit) == NULL);
    CHECK(fdmux__slots_find(&slots, 0) == NULL);
    CHECK(fdmux__slots_find(&slots, UINT64_MAX) == NULL);
    fdmux__slots_free(&slots);
}

UNIT_TEST(never_used_slot_is_not_found_under_an_even_generation)
{
    struct fdmux__slots slots = open_table();
    uint64_t token = take(&slots);
    uint32_t index = fdmux__token_slot(token);

    fdmux__slots_kill(&slots, index);
    /* A free slot has an even generation, so no forged token finds it. */
    CHECK(fdmux__slots_find(&slots, fdmux__slots_token(&slots, index)) == NULL);
    fdmux__slots_free(&slots);
}

UNIT_TEST(generation_wraps_without_touching_bit_63)
{
    struct fdmux__slots slots = open_table();
    uint32_t index = fdmux__token_slot(take(&slots));
    struct item *item = fdmux__slots_at(&slots, index);

    fdmux__slots_kill(&slots, index);
    atomic_store(&item->slot.generation, UINT32_C(0x7ffffffe));
    fdmux__slots_recycle(&slots, index);
    CHECK((int64_t)take(&slots) > 0);
    fdmux__slots_kill(&slots, index);
    CHECK_EQ(atomic_load(&item->slot.generation), 0);
    fdmux__slots_free(&slots);
}

UNIT_TEST(failed_allocation_changes_nothing)
{
    struct fdmux__slots slots = open_table();
    uint32_t index = 1234;

    fdmux_testing_fail(FDMUX_CALL_MEMORY, 1, ENOMEM, 0);
    CHECK_EQ(fdmux__slots_take(&slots, &index), -ENOMEM);
    CHECK_EQ(index, 1234);
    CHECK_EQ(slots.live_count, 0);
    CHECK(take(&slots) != 0);
    fdmux__slots_free(&slots);
}
