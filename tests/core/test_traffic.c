/* test_traffic.c: native traffic that never returns to the caller still lets deadlines,
 * wakes and signals through, and starves no watcher. */
#include "fixtures.h"

#include <pthread.h>

enum { CHANNELS = 8 };

/* A byte that goes back and forth between two pipes for ever. */
struct table {
    struct fdmux_loop *loop;
    struct channel channels[2];
    int64_t rounds;
    int64_t wake_after; /* rounds; 0: never */
};

static int play(struct table *table, int from)
{
    drain(&table->channels[from]);
    feed(&table->channels[1 - from]);
    table->rounds++;
    if (table->rounds == table->wake_after)
        CHECK_EQ(fdmux_loop_wake(table->loop), 0);
    return 0;
}

static int ping(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    (void)loop, (void)io, (void)events;
    return play(userdata, 0);
}

static int pong(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    (void)loop, (void)io, (void)events;
    return play(userdata, 1);
}

static struct table *open_table(void)
{
    static struct table table;

    table = (struct table){
        .loop = check_open_loop(),
        .channels = {open_channel(), open_channel()},
    };
    watch_with(table.loop, table.channels[0].read_fd, FDMUX_READ, ping, &table);
    watch_with(table.loop, table.channels[1].read_fd, FDMUX_READ, pong, &table);
    feed(&table.channels[0]);
    return &table;
}

static void close_table(struct table *table)
{
    VERIFY(table->loop);
    fdmux_loop_destroy(table->loop);
    close_channel(&table->channels[0]);
    close_channel(&table->channels[1]);
}

TEST(native_traffic_does_not_return_before_the_deadline)
{
    struct table *table = open_table();
    int64_t start_ns = fdmux_loop_now(table->loop);

    CHECK_EQ(fdmux_loop_dispatch(table->loop, 10 * MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(table->loop) - start_ns >= 10 * MS);
    CHECK(table->rounds > 10);
    close_table(table);
}

TEST(deadline_holds_under_saturated_traffic)
{
    struct table *table = open_table();
    int64_t start_ns = fdmux_loop_now(table->loop);

    for (int i = 0; i < 5; i++)
        CHECK_EQ(fdmux_loop_dispatch(table->loop, 2 * MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(table->loop) - start_ns < 1000 * MS);
    close_table(table);
}

TEST(saturated_traffic_lets_signals_be_served)
{
    struct table *table = open_table();
    int64_t start_ns = fdmux_loop_now(table->loop);
    int64_t spent_ns;

    CHECK_EQ(fdmux_loop_dispatch(table->loop, -1, NULL, 0), -EINTR);
    spent_ns = fdmux_loop_now(table->loop) - start_ns;
    CHECK(spent_ns >= 40 * MS && spent_ns < 1000 * MS);
    close_table(table);
}

TEST(wake_returns_under_saturated_traffic)
{
    struct table *table = open_table();

    table->wake_after = 50;
    CHECK_EQ(fdmux_loop_dispatch(table->loop, -1, NULL, 0), 0);
    CHECK(table->rounds < 60);
    close_table(table);
}

static void *wake_from_thread(void *userdata)
{
    CHECK_EQ(fdmux_loop_wake(userdata), 0);
    return NULL;
}

TEST(wake_of_a_thread_returns_under_saturated_traffic)
{
    struct table *table = open_table();
    pthread_t thread;
    int r;

    CHECK_EQ(pthread_create(&thread, NULL, wake_from_thread, table->loop), 0);
    do {
        r = fdmux_loop_dispatch(table->loop, -1, NULL, 0);
    } while (r == -EINTR); /* the thread may start late */
    CHECK_EQ(r, 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    close_table(table);
}

TEST(collected_event_returns_under_saturated_traffic)
{
    struct table *table = open_table();
    struct channel channel = open_channel();
    struct fdmux_ready ready[1];

    collect(table->loop, channel.read_fd, FDMUX_READ, 6);
    feed(&channel);
    CHECK_EQ(fdmux_loop_dispatch(table->loop, -1, ready, 1), 1);
    CHECK_EQ(ready[0].tag, 6);
    close_table(table);
    close_channel(&channel);
}

/* ---- no starvation ------------------------------------------------------------- */

static int arm_again(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    ++*(int *)userdata;
    CHECK_EQ(fdmux_timer_arm(loop, timer, 0, 0), 0);
    return 0;
}

static int post_again(struct fdmux_loop *loop, void *userdata)
{
    ++*(int *)userdata;
    if (loop != NULL)
        CHECK_EQ(fdmux_post(loop, post_again, userdata), 0);
    return 0;
}

TEST(timer_that_re_arms_itself_for_now_starves_nobody)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[3] = {0};
    int count = 0;

    feed(&channel);
    watch(loop, channel.read_fd, FDMUX_READ, &calls[0]);
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls[1]), 1, 1), 0);
    CHECK_EQ(fdmux_timer_arm(loop, add_timer_with(loop, arm_again, &count), 0, 0), 0);
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(fdmux_post(loop, count_post, &calls[2]), 0);
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(count, i); /* once per iteration */
        CHECK_EQ(calls[0].count, i);
        CHECK_EQ(calls[1].count, i);
        CHECK_EQ(calls[2].count, i);
    }
    fdmux_loop_destroy(loop);
    close_channel(&channel);
}

TEST(post_that_posts_itself_starves_nobody)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct calls calls[2] = {0};
    int count = 0;

    feed(&channel);
    watch(loop, channel.read_fd, FDMUX_READ, &calls[0]);
    CHECK_EQ(fdmux_timer_arm(loop, add_timer(loop, &calls[1]), 1, 1), 0);
    CHECK_EQ(fdmux_post(loop, post_again, &count), 0);
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(poll_once(loop), 0);
        CHECK_EQ(count, i);
        CHECK_EQ(calls[0].count, i);
        CHECK_EQ(calls[1].count, i);
    }
    fdmux_loop_destroy(loop);
    CHECK_EQ(count, 4); /* the last one, with a NULL loop */
    close_channel(&channel);
}

TEST(endless_posts_keep_the_deadline)
{
    struct fdmux_loop *loop = check_open_loop();
    int64_t start_ns = fdmux_loop_now(loop);
    int count = 0;

    CHECK_EQ(fdmux_post(loop, post_again, &count), 0);
    CHECK_EQ(fdmux_loop_dispatch(loop, 5 * MS, NULL, 0), 0);
    CHECK(fdmux_loop_now(loop) - start_ns >= 5 * MS);
    CHECK_EQ(fdmux_loop_dispatch(loop, -1, NULL, 0), -EINTR);
    fdmux_loop_destroy(loop);
}

TEST(ready_watchers_are_served_alike)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channels[CHANNELS];
    struct calls calls[CHANNELS] = {0};

    for (int i = 0; i < CHANNELS; i++) {
        channels[i] = open_channel();
        feed(&channels[i]);
        watch(loop, channels[i].read_fd, FDMUX_READ, &calls[i]);
    }
    CHECK_EQ(fdmux_loop_dispatch(loop, 50 * MS, NULL, 0), 0);
    CHECK(calls[0].count > 2);
    for (int i = 1; i < CHANNELS; i++)
        CHECK_EQ(calls[i].count, calls[0].count);
    fdmux_loop_destroy(loop);
    for (int i = 0; i < CHANNELS; i++)
        close_channel(&channels[i]);
}
