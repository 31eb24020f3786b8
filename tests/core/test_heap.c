/* test_heap.c: compares the heap of deadlines with a plain array, without a loop. */
#include "check.h"

#include "heap.h"

enum { COUNT = 600 };

struct model {
    struct fdmux__heap heap;
    uint32_t index[COUNT]; /* kept by the heap; HEAP_NONE: not in it */
    int64_t deadline_ns[COUNT];
    uint64_t sequence[COUNT];
    uint64_t next_sequence;
};

static void insert(struct model *model, uint32_t owner, int64_t deadline_ns)
{
    struct fdmux__heap_entry entry = {
        .deadline_ns = deadline_ns,
        .sequence = model->next_sequence++,
        .index = &model->index[owner],
        .owner = owner,
    };

    model->deadline_ns[owner] = deadline_ns;
    model->sequence[owner] = entry.sequence;
    fdmux__heap_insert(&model->heap, entry);
}

/* Returns the owner that must come first. O(COUNT). */
static uint32_t first_owner(const struct model *model)
{
    uint32_t best = COUNT;

    for (uint32_t i = 0; i < COUNT; i++) {
        if (model->index[i] == FDMUX__HEAP_NONE)
            continue;
        if (best == COUNT || model->deadline_ns[i] < model->deadline_ns[best] ||
            (model->deadline_ns[i] == model->deadline_ns[best] &&
             model->sequence[i] < model->sequence[best]))
            best = i;
    }
    return best;
}

static void check_heap(const struct model *model)
{
    for (uint32_t i = 0; i < model->heap.count; i++)
        CHECK_EQ(*model->heap.entries[i].index, i);
    if (model->heap.count > 0)
        CHECK_EQ(model->heap.entries[0].owner, first_owner(model));
    else
        CHECK_EQ(first_owner(model), COUNT);
}

static struct model *open_model(void)
{
    static struct model model;

    memset(&model, 0, sizeof model);
    memset(model.index, 0xff, sizeof model.index);
    CHECK_EQ(fdmux__heap_reserve(&model.heap, COUNT), 0);
    return &model;
}

UNIT_TEST(random_inserts_and_removals_agree_with_a_model)
{
    struct model *model = open_model();
    uint64_t random = 1;

    for (int step = 0; step < 20000; step++) {
        uint32_t owner = check_random(&random) % COUNT;

        if (model->index[owner] != FDMUX__HEAP_NONE)
            fdmux__heap_remove(&model->heap, model->index[owner]);
        else
            insert(model, owner, check_random(&random) % 50);
        if (step % 16 == 0)
            check_heap(model);
    }
    fdmux__heap_free(&model->heap);
}

UNIT_TEST(equal_deadlines_leave_in_the_order_of_arrival)
{
    struct model *model = open_model();

    for (uint32_t i = 0; i < COUNT; i++)
        insert(model, (i * 7) % COUNT, 5);
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK_EQ(model->heap.entries[0].owner, (i * 7) % COUNT);
        fdmux__heap_remove(&model->heap, 0);
    }
    CHECK_EQ(model->heap.count, 0);
    fdmux__heap_free(&model->heap);
}

UNIT_TEST(failed_reserve_changes_nothing)
{
    struct model *model = open_model();
    uint32_t capacity = model->heap.capacity;

    insert(model, 3, 5);
    fdmux_testing_fail(FDMUX_CALL_MEMORY, 1, ENOMEM, 0);
    CHECK_EQ(fdmux__heap_reserve(&model->heap, capacity + 1), -ENOMEM);
    CHECK_EQ(model->heap.capacity, capacity);
    CHECK_EQ(model->heap.entries[0].owner, 3);
    CHECK_EQ(fdmux__heap_reserve(&model->heap, capacity + 1), 0);
    CHECK_EQ(model->heap.entries[0].owner, 3);
    fdmux__heap_free(&model->heap);
}
