/* test_misuse_queue.c: random calls on two queues, mostly with wrong arguments.
 *
 * Each call succeeds or returns an error that the header names. At the end every item
 * that was accepted was taken or dropped, once. test_misuse_random.c does the same for
 * loops. */
#include "fixtures.h"

#define QUEUE_COUNT 2
#define CALL_COUNT 20000
#define TAKE_MAX 16

static struct world {
    uint64_t random;
    struct fdmux_queue *queues[QUEUE_COUNT];
    int references[QUEUE_COUNT]; /* besides the first */
    int64_t accepted;
    int64_t taken;
    int64_t dropped;
    int depth;
} world;

static uint32_t below(uint32_t bound)
{
    return check_random(&world.random) % bound;
}

static struct fdmux_queue *any_queue(void)
{
    static uint64_t garbage[64];

    if (below(40) == 0)
        return NULL;
    return below(40) == 0 ? (void *)garbage : world.queues[below(QUEUE_COUNT)];
}

static void call_something(void);

static void on_drop(void *item, void *userdata)
{
    CHECK(item != NULL && userdata == &world);
    world.dropped++;
    if (world.depth < 2 && below(8) == 0) {
        world.depth++;
        call_something();
        world.depth--;
    }
}

/* Wrong options create no queue. */
static void try_create(void)
{
    struct fdmux_queue_options options = {
        .struct_size = below(4) == 0 ? below(80) : sizeof options,
        .drop = on_drop,
        .userdata = &world,
        .capacity = below(2) == 0 ? 0 : below(40),
        .reserved = below(8) == 0 ? check_random(&world.random) : 0,
    };
    struct fdmux_queue *queue = NULL;
    int r = fdmux_queue_create(&options, below(8) == 0 ? NULL : &queue);

    CHECK(r == -EINVAL || r == -EFAULT || r == -E2BIG || r == 0);
    CHECK((r == 0) == (queue != NULL));
    CHECK(fdmux_queue_unref(queue) == NULL);
}

static void open_queue(int index)
{
    struct fdmux_queue_options options = {
        .struct_size = sizeof options,
        .drop = below(2) == 0 ? on_drop : NULL,
        .userdata = &world,
        .capacity = below(2) == 0 ? 0 : below(40),
    };

    CHECK_EQ(fdmux_queue_create(&options, &world.queues[index]), 0);
    CHECK_EQ(fdmux_queue_set_drop(world.queues[index], on_drop, &world), 0);
}

/* Not inside `drop`, whose caller may hold the last reference. */
static void replace_queue(void)
{
    int index = (int)below(QUEUE_COUNT);

    if (world.depth > 0)
        return;
    for (; world.references[index] > 0; world.references[index]--)
        (void)fdmux_queue_unref(world.queues[index]);
    (void)fdmux_queue_unref(world.queues[index]);
    open_queue(index);
}

/* Not inside `drop` either: after the last unref no reference can be added. */
static void try_reference(void)
{
    int index = (int)below(QUEUE_COUNT);

    CHECK(fdmux_queue_ref(NULL) == NULL);
    if (world.depth > 0)
        return;
    if (world.references[index] > 0 && below(2) == 0) {
        world.references[index]--;
        CHECK(fdmux_queue_unref(world.queues[index]) == NULL);
    } else {
        world.references[index]++;
        CHECK(fdmux_queue_ref(world.queues[index]) == world.queues[index]);
    }
}

static void try_put(void)
{
    int r = fdmux_queue_put(any_queue(), &world);

    CHECK(r == 0 || r == -EINVAL || r == -EFAULT || r == -ESTALE || r == -ENOBUFS);
    world.accepted += r == 0 ? 1 : 0;
}

static void try_take(void)
{
    void *items[TAKE_MAX];
    int capacity = (int)below(TAKE_MAX + 1) - (below(10) == 0 ? TAKE_MAX : 0);
    int r = fdmux_queue_take(any_queue(), below(20) == 0 ? NULL : items, capacity);

    CHECK((r >= 0 && r <= capacity) || r == -EINVAL || r == -EFAULT || r == -ESTALE);
    for (int i = 0; i < r; i++)
        CHECK(items[i] == &world);
    world.taken += r > 0 ? r : 0;
}

static void try_the_rest(void)
{
    int r = fdmux_queue_fd(any_queue());

    CHECK(r >= 0 || r == -EINVAL || r == -EFAULT || r == -ESTALE);
    r = fdmux_queue_set_drop(any_queue(), below(2) == 0 ? NULL : on_drop,
                             below(2) == 0 ? NULL : &world);
    CHECK(r == 0 || r == -EINVAL || r == -EFAULT || r == -EBUSY || r == -ESTALE);
    if (below(10) == 0) {
        r = fdmux_queue_close(any_queue());
        CHECK(r == 0 || r == -EINVAL || r == -EFAULT);
    }
}

static void call_something(void)
{
    static void (*const tries[])(void) = {
        try_put, try_put,  try_put,       try_put,      try_put,
        try_put, try_take, try_reference, try_the_rest, try_create,
    };

    tries[below(sizeof tries / sizeof *tries)]();
}

UNIT_TEST(random_calls_of_queues_lose_no_item)
{
    world = (struct world){.random = 17};
    for (int i = 0; i < QUEUE_COUNT; i++)
        open_queue(i);
    for (int i = 0; i < CALL_COUNT; i++) {
        call_something();
        if (below(100) == 0)
            replace_queue();
    }
    for (int i = 0; i < QUEUE_COUNT; i++) {
        for (; world.references[i] > 0; world.references[i]--)
            (void)fdmux_queue_unref(world.queues[i]);
        (void)fdmux_queue_unref(world.queues[i]);
    }
    CHECK(world.taken > 1000 && world.dropped > 1000);
    CHECK_EQ(world.taken + world.dropped, world.accepted);
}
