/* test_sharing.c: several watchers of one descriptor do not disturb each other. */
#include "fixtures.h"

#include <unistd.h>

enum { COUNT = 3 };

/* A connected socket with three watchers, which record the order of their calls. */
struct scene {
    struct fdmux_loop *loop;
    int fds[2];
    struct calls calls[COUNT];
    uint64_t ios[COUNT];
};

static struct scene *open_scene(const uint32_t events[COUNT])
{
    static struct scene scene;

    scene = (struct scene){.loop = check_open_loop()};
    open_sockets(scene.fds);
    for (int i = 0; i < COUNT; i++)
        scene.ios[i] = watch(scene.loop, scene.fds[0], events[i], &scene.calls[i]);
    VERIFY(scene.loop);
    return &scene;
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(scene->calls[i].destroyed, 1);
    close(scene->fds[0]);
    close(scene->fds[1]);
}

static const uint32_t read_write_both[COUNT] = {
    FDMUX_READ,
    FDMUX_WRITE,
    FDMUX_READ | FDMUX_WRITE,
};
static const uint32_t all_write[COUNT] = {FDMUX_WRITE, FDMUX_WRITE, FDMUX_WRITE};

TEST(each_gets_only_what_it_asked_for)
{
    struct scene *scene = open_scene(read_write_both);

    CHECK_EQ(stats_of(scene->loop).fd_live, 1);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls[0].count, 0);
    CHECK_EQ(scene->calls[1].events, FDMUX_WRITE);
    CHECK_EQ(scene->calls[2].events, FDMUX_WRITE);
    CHECK_EQ(write(scene->fds[1], "x", 1), 1);
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls[0].events, FDMUX_READ);
    CHECK_EQ(scene->calls[1].events, FDMUX_WRITE);
    CHECK_EQ(scene->calls[2].events, FDMUX_READ | FDMUX_WRITE);
    close_scene(scene);
}

TEST(removing_one_leaves_the_others)
{
    for (int removed = 0; removed < COUNT; removed++) {
        struct scene *scene = open_scene(all_write);

        CHECK_EQ(fdmux_io_remove(scene->loop, scene->ios[removed]), 0);
        CHECK_EQ(scene->calls[removed].destroyed, 1);
        VERIFY(scene->loop);
        CHECK_EQ(poll_once(scene->loop), 0);
        for (int i = 0; i < COUNT; i++)
            CHECK_EQ(scene->calls[i].count, i == removed ? 0 : 1);
        close_scene(scene);
    }
}

TEST(updating_one_leaves_the_others)
{
    for (int updated = 0; updated < COUNT; updated++) {
        struct scene *scene = open_scene(all_write);

        CHECK_EQ(fdmux_io_update(scene->loop, scene->ios[updated], FDMUX_READ), 0);
        VERIFY(scene->loop);
        CHECK_EQ(poll_once(scene->loop), 0);
        for (int i = 0; i < COUNT; i++)
            CHECK_EQ(scene->calls[i].count, i == updated ? 0 : 1);
        close_scene(scene);
    }
}

TEST(hangup_reaches_all_but_those_that_watch_nothing)
{
    const uint32_t events[COUNT] = {FDMUX_READ, 0, FDMUX_HANGUP};
    struct scene *scene = open_scene(events);

    close(scene->fds[1]);
    scene->fds[1] = dup(scene->fds[0]); /* close_scene closes it */
    CHECK_EQ(poll_once(scene->loop), 0);
    CHECK_EQ(scene->calls[0].events, FDMUX_READ | FDMUX_HANGUP);
    CHECK_EQ(scene->calls[1].count, 0);
    CHECK((scene->calls[2].events & FDMUX_HANGUP) != 0);
    close_scene(scene);
}

/* ---- order --------------------------------------------------------------------- */

struct order {
    int count;
    int numbers[8];
};

struct numbered {
    struct order *order;
    int number;
};

static int note_number(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct numbered *numbered = userdata;

    (void)loop, (void)io, (void)events;
    numbered->order->numbers[numbered->order->count++] = numbered->number;
    return 0;
}

TEST(watchers_of_one_descriptor_run_in_the_order_of_adding)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct order order = {0};
    struct numbered numbered[5];
    uint64_t ios[5];

    feed(&channel);
    for (int i = 0; i < 5; i++) {
        numbered[i] = (struct numbered){&order, i};
        ios[i] =
            watch_with(loop, channel.read_fd, FDMUX_READ, note_number, &numbered[i]);
    }
    CHECK_EQ(fdmux_io_remove(loop, ios[1]), 0);
    numbered[1].number = 9;
    watch_with(loop, channel.read_fd, FDMUX_READ, note_number, &numbered[1]);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(order.count, 5);
    CHECK(memcmp(order.numbers, (int[]){0, 2, 3, 4, 9}, 5 * sizeof(int)) == 0);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

/* ---- changes inside a batch ---------------------------------------------------- */

struct adder {
    struct calls added;
    int fd;
    uint64_t io;
};

static int add_another(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct adder *adder = userdata;

    (void)io, (void)events;
    if (adder->io == 0)
        adder->io = watch(loop, adder->fd, FDMUX_READ, &adder->added);
    return 0;
}

TEST(watcher_added_in_a_callback_waits_for_the_next_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[2] = {open_channel(), open_channel()};

    for (int other = 0; other < 2; other++) {
        struct adder adder = {.fd = channels[other].read_fd};
        uint64_t io =
            watch_with(loop, channels[0].read_fd, FDMUX_READ, add_another, &adder);

        feed(&channels[0]);
        feed(&channels[1]);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(adder.added.count, 0);
        VERIFY(loop);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(adder.added.count, 1);
        CHECK_EQ(fdmux_io_remove(loop, io), 0);
        CHECK_EQ(fdmux_io_remove(loop, adder.io), 0);
    }
    fdmux_loop_destroy(loop);
    close_channel(&channels[0]);
    close_channel(&channels[1]);
}

struct updater {
    uint64_t target;
    uint32_t events;
};

static int update_target(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                         void *userdata)
{
    struct updater *updater = userdata;

    (void)io, (void)events;
    CHECK_EQ(fdmux_io_update(loop, updater->target, updater->events), 0);
    return 0;
}

TEST(update_in_a_callback_holds_in_the_same_batch)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct updater updater = {.events = 0};
    struct calls calls = {0};

    feed(&channel);
    watch_with(loop, channel.read_fd, FDMUX_READ, update_target, &updater);
    updater.target = watch(loop, channel.read_fd, FDMUX_READ, &calls);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(calls.count, 0);
    VERIFY(loop);
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}
