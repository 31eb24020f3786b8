/* test_queue.c: items that threads put are taken once each, in order, and the
 * descriptor reports them; items that nobody takes are dropped. */
#include "fixtures.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 256 };

/* The items that `drop` was called for. */
struct dropped {
    int count;
    uintptr_t last;
    bool is_in_order;
};

static void *item_of(uintptr_t number)
{
    return (void *)number;
}

static void note_drop(void *item, void *userdata)
{
    struct dropped *dropped = userdata;

    if (dropped->count++ > 0 && (uintptr_t)item != dropped->last + 1)
        dropped->is_in_order = false;
    dropped->last = (uintptr_t)item;
}

static struct fdmux_queue *open_queue(uint32_t capacity, struct dropped *dropped)
{
    struct fdmux_queue_options options = {
        .struct_size = sizeof options,
        .drop = dropped == NULL ? NULL : note_drop,
        .userdata = dropped,
        .capacity = capacity,
    };
    struct fdmux_queue *queue = NULL;

    if (dropped != NULL)
        *dropped = (struct dropped){.is_in_order = true};
    CHECK_EQ(fdmux_queue_create(&options, &queue), 0);
    return queue;
}

static void put(struct fdmux_queue *queue, uintptr_t number)
{
    CHECK_EQ(fdmux_queue_put(queue, item_of(number)), 0);
}

/* Take one item, which must be there. */
static uintptr_t take_one(struct fdmux_queue *queue)
{
    void *item = NULL;

    CHECK_EQ(fdmux_queue_take(queue, &item, 1), 1);
    return (uintptr_t)item;
}

static bool is_announced(struct fdmux_queue *queue)
{
    return is_readable(fdmux_queue_fd(queue));
}

/* ---- one thread ---------------------------------------------------------------- */

UNIT_TEST(descriptor_is_readable_exactly_while_there_are_items)
{
    struct fdmux_queue *queue = open_queue(0, NULL);
    void *items[BATCH];

    CHECK(!is_announced(queue));
    CHECK_EQ(fdmux_queue_take(queue, items, BATCH), 0);
    put(queue, 1);
    put(queue, 2);
    CHECK(is_announced(queue));
    CHECK_EQ(take_one(queue), 1);
    CHECK(is_announced(queue)); /* items are left */
    CHECK_EQ(fdmux_queue_take(queue, items, 0), 0);
    CHECK(is_announced(queue));
    CHECK_EQ(take_one(queue), 2);
    CHECK(!is_announced(queue));
    put(queue, 3);
    CHECK(is_announced(queue));
    CHECK_EQ(fdmux_queue_take(queue, items, BATCH), 1);
    CHECK(!is_announced(queue));
    fdmux_queue_unref(queue);
}

UNIT_TEST(descriptor_is_close_on_exec_and_does_not_block)
{
    struct fdmux_queue *queue = open_queue(0, NULL);
    int fd = fdmux_queue_fd(queue);

    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    fdmux_queue_unref(queue);
}

/* The ring grows while it is wrapped; two counters check the order. */
UNIT_TEST(order_is_kept_however_many_are_put_and_taken)
{
    struct fdmux_queue *queue = open_queue(0, NULL);
    uintptr_t next_put = 0, next_taken = 0;
    uint64_t seed = 7;
    void *items[BATCH];

    while (next_put < 100000) {
        uint32_t put_count = check_random(&seed) % 300;
        int capacity = (int)(check_random(&seed) % BATCH);
        int count;

        while (put_count-- > 0)
            put(queue, next_put++);
        count = fdmux_queue_take(queue, items, capacity);
        CHECK(count >= 0 && count <= capacity);
        CHECK(count == capacity || next_taken + (uintptr_t)count == next_put);
        for (int i = 0; i < count; i++)
            CHECK_EQ((uintptr_t)items[i], next_taken++);
        CHECK_EQ(is_announced(queue), next_taken != next_put);
    }
    CHECK(next_put - next_taken > 1000); /* it had to grow */
    fdmux_queue_unref(queue);
}

UNIT_TEST(change_between_empty_and_not_costs_one_system_call)
{
    struct fdmux_queue *queue = open_queue(0, NULL);
    void *items[BATCH];

    fdmux_testing_fail(FDMUX_CALL_WRITE | FDMUX_CALL_READ, 0, 0, 0); /* counts only */
    for (uintptr_t i = 0; i < 100; i++)
        put(queue, i);
    CHECK_EQ(fdmux_testing_calls(), 1);
    CHECK_EQ(fdmux_queue_take(queue, items, 50), 50);
    put(queue, 100);
    CHECK_EQ(fdmux_testing_calls(), 1);
    CHECK_EQ(fdmux_queue_take(queue, items, BATCH), 51);
    CHECK_EQ(fdmux_testing_calls(), 2);
    CHECK_EQ(fdmux_queue_take(queue, items, BATCH), 0);
    CHECK_EQ(fdmux_testing_calls(), 2);
    put(queue, 101);
    CHECK_EQ(fdmux_testing_calls(), 3);
    fdmux_queue_unref(queue);
}

UNIT_TEST(item_beyond_the_capacity_is_refused_until_one_is_taken)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(3, &dropped);

    for (uintptr_t i = 1; i <= 3; i++)
        put(queue, i);
    CHECK_EQ(fdmux_queue_put(queue, item_of(4)), -ENOBUFS);
    CHECK_EQ(dropped.count, 0);
    CHECK_EQ(take_one(queue), 1);
    put(queue, 4);
    CHECK_EQ(fdmux_queue_put(queue, item_of(5)), -ENOBUFS);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 3);
    CHECK_EQ(dropped.last, 4); /* not 5: the caller still owns it */
}

UNIT_TEST(null_is_an_item_like_any_other)
{
    struct fdmux_queue *queue = open_queue(0, NULL);

    put(queue, 0);
    CHECK(is_announced(queue));
    CHECK_EQ(take_one(queue), 0);
    fdmux_queue_unref(queue);
}

/* ---- the end ------------------------------------------------------------------- */

static void check_closed(struct fdmux_queue *queue)
{
    void *item = item_of(7);

    CHECK_EQ(fdmux_queue_put(queue, item), -ESTALE);
    CHECK_EQ(fdmux_queue_take(queue, &item, 1), -ESTALE);
    CHECK_EQ((uintptr_t)item, 7);
    CHECK_EQ(fdmux_queue_fd(queue), -ESTALE);
    CHECK_EQ(fdmux_queue_set_drop(queue, note_drop, NULL), -ESTALE);
    CHECK_EQ(fdmux_queue_close(queue), 0);
}

UNIT_TEST(close_drops_what_is_left_once_and_in_order)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(0, &dropped);

    for (uintptr_t i = 0; i < 1000; i++)
        put(queue, i);
    CHECK_EQ(take_one(queue), 0);
    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK_EQ(dropped.count, 999);
    CHECK_EQ(dropped.last, 999);
    CHECK(dropped.is_in_order);
    check_closed(queue);
    CHECK(fdmux_queue_unref(queue) == NULL);
    CHECK_EQ(dropped.count, 999);
}

UNIT_TEST(put_after_the_owner_has_gone_is_estale)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(0, &dropped);
    struct fdmux_queue *shared = fdmux_queue_ref(queue);

    CHECK(shared == queue);
    put(shared, 1);
    CHECK_EQ(fdmux_queue_close(queue), 0);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 1);
    check_closed(shared);
    fdmux_queue_unref(shared);
    CHECK_EQ(dropped.count, 1);
}

UNIT_TEST(last_reference_closes)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(0, &dropped);

    put(fdmux_queue_ref(queue), 1);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 0);
    put(queue, 2);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 2);
}

static void use_in_drop(void *item, void *userdata)
{
    struct fdmux_queue *queue = item;

    check_closed(queue);
    fdmux_queue_unref(queue); /* the item's reference */
    ++*(int *)userdata;
}

UNIT_TEST(drop_may_call_the_queue)
{
    int count = 0;
    struct fdmux_queue *queue = open_queue(0, NULL);

    CHECK_EQ(fdmux_queue_set_drop(queue, use_in_drop, &count), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fdmux_queue_put(queue, fdmux_queue_ref(queue)), 0);
    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK_EQ(count, 3);
    fdmux_queue_unref(queue);
}

/* ---- arguments ----------------------------------------------------------------- */

UNIT_TEST(no_queue_is_efault_and_a_foreign_one_einval)
{
    uint64_t foreign[64] = {0};
    struct fdmux_queue *none[] = {NULL, (struct fdmux_queue *)foreign};
    int errors[] = {-EFAULT, -EINVAL};
    void *item = NULL;

    for (int i = 0; i < 2; i++) {
        CHECK_EQ(fdmux_queue_fd(none[i]), errors[i]);
        CHECK_EQ(fdmux_queue_put(none[i], item), errors[i]);
        CHECK_EQ(fdmux_queue_take(none[i], &item, 1), errors[i]);
        CHECK_EQ(fdmux_queue_close(none[i]), errors[i]);
        CHECK_EQ(fdmux_queue_set_drop(none[i], note_drop, NULL), errors[i]);
        CHECK(fdmux_queue_ref(none[i]) == NULL);
        CHECK(fdmux_queue_unref(none[i]) == NULL);
    }
}

UNIT_TEST(unknown_options_are_refused)
{
    struct fdmux_queue_options options = {.struct_size = sizeof options};
    struct fdmux_queue *queue = (struct fdmux_queue *)item_of(7);

    CHECK_EQ(fdmux_queue_create(&options, NULL), -EFAULT);
    options.reserved = 1;
    CHECK_EQ(fdmux_queue_create(&options, &queue), -EINVAL);
    options.reserved = 0;
    options.struct_size--;
    CHECK_EQ(fdmux_queue_create(&options, &queue), -E2BIG);
    options.struct_size = 0;
    CHECK_EQ(fdmux_queue_create(&options, &queue), -E2BIG);
    CHECK_EQ((uintptr_t)queue, 7); /* results are written on success only */
    CHECK_EQ(fdmux_queue_create(NULL, &queue), 0);
    fdmux_queue_unref(queue);
}

UNIT_TEST(invalid_array_is_refused)
{
    struct fdmux_queue *queue = open_queue(0, NULL);
    void *item = NULL;

    put(queue, 1);
    CHECK_EQ(fdmux_queue_take(queue, &item, -1), -EINVAL);
    CHECK_EQ(fdmux_queue_take(queue, NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_queue_take(queue, NULL, 0), 0);
    CHECK_EQ(take_one(queue), 1);
    fdmux_queue_unref(queue);
}

UNIT_TEST(drop_is_set_once)
{
    struct dropped dropped = {0};
    struct fdmux_queue *queue = open_queue(0, NULL);

    CHECK_EQ(fdmux_queue_set_drop(queue, NULL, &dropped), -EINVAL);
    put(queue, 1);
    CHECK_EQ(fdmux_queue_set_drop(queue, note_drop, &dropped), 0);
    CHECK_EQ(fdmux_queue_set_drop(queue, note_drop, &dropped), 0);
    CHECK_EQ(fdmux_queue_set_drop(queue, note_drop, NULL), -EBUSY);
    CHECK_EQ(fdmux_queue_set_drop(queue, use_in_drop, &dropped), -EBUSY);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 1);
}

/* ---- faults -------------------------------------------------------------------- */

struct plan {
    int error;
    int persistent;
    int64_t nth;
};

/* Whatever call fails, each item is either accepted or still the caller's. Returns how
 * many calls were made. */
static int64_t run_plan(struct plan plan)
{
    struct dropped dropped = {.is_in_order = true};
    struct fdmux_queue_options options = {sizeof options, note_drop, &dropped, 0, 0};
    struct fdmux_queue *queue = NULL;
    uintptr_t accepted = 0, taken = 0;
    int64_t calls;
    int r;

    fdmux_testing_fail(FDMUX_CALL_ANY, plan.nth, plan.error, plan.persistent);
    r = fdmux_queue_create(&options, &queue);
    CHECK_EQ(r == 0, queue != NULL);
    CHECK(r == 0 || r == -plan.error || r == -ENOMEM);
    for (int i = 0; r == 0 && i < 400; i++) {
        void *item = item_of(accepted);
        int done = i % 100 < 75 ? fdmux_queue_put(queue, item)
                                : fdmux_queue_take(queue, &item, 1);

        CHECK(done >= 0 || done == -plan.error || done == -ENOMEM);
        if (i % 100 < 75)
            accepted += done == 0;
        else if (done > 0)
            CHECK_EQ((uintptr_t)item, taken++);
        CHECK_EQ(done < 0 || is_announced(queue), done < 0 || taken != accepted);
    }
    calls = fdmux_testing_calls();
    fdmux_queue_unref(queue); /* while calls still fail, close(2) included */
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(dropped.count, accepted - taken);
    CHECK(dropped.is_in_order);
    CHECK_EQ(fdmux_testing_allocations(), 0);
    return calls;
}

UNIT_TEST(every_call_fails_once_and_for_ever)
{
    static const int errors[] = {ENOMEM, EMFILE, EPERM, EIO, EINTR};
    int fds = check_open_fds();

    for (int i = 0; i < 10; i++) {
        struct plan plan = {errors[i / 2], i % 2, 1};

        if (plan.error == EINTR && plan.persistent)
            continue; /* would be retried for ever */
        while (run_plan(plan) >= plan.nth) {
            CHECK_EQ(check_open_fds(), fds);
            plan.nth++;
        }
        CHECK(plan.nth > 3); /* each call was made to fail */
    }
}

UNIT_TEST(refused_write_leaves_the_item_to_its_owner)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(0, &dropped);

    fdmux_testing_fail(FDMUX_CALL_WRITE, 1, EPERM, 0);
    CHECK_EQ(fdmux_queue_put(queue, item_of(1)), -EPERM);
    CHECK(!is_announced(queue));
    put(queue, 2);
    CHECK(is_announced(queue));
    CHECK_EQ(take_one(queue), 2);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 0);
}

UNIT_TEST(failed_read_loses_no_item_and_is_returned_when_there_is_none)
{
    struct fdmux_queue *queue = open_queue(0, NULL);
    void *item;

    put(queue, 1);
    fdmux_testing_fail(FDMUX_CALL_READ, 1, EIO, 1);
    CHECK_EQ(take_one(queue), 1);
    CHECK(is_announced(queue)); /* a spurious event is better than a lost one */
    CHECK_EQ(fdmux_queue_take(queue, &item, 1), -EIO);
    put(queue, 2);
    fdmux_testing_fail(0, 0, 0, 0);
    CHECK_EQ(take_one(queue), 2);
    CHECK(!is_announced(queue));
    fdmux_queue_unref(queue);
}

UNIT_TEST(pipe_replaces_a_missing_eventfd)
{
    struct fdmux_queue *queue;

    fdmux_testing_fail(FDMUX_CALL_EVENTFD, 1, ENOSYS, 1);
    queue = open_queue(0, NULL);
    for (uintptr_t i = 0; i < 3; i++) {
        put(queue, i);
        CHECK(is_announced(queue));
        CHECK_EQ(take_one(queue), i);
        CHECK(!is_announced(queue));
    }
    fdmux_queue_unref(queue);
}

/* ---- threads ------------------------------------------------------------------- */

enum { THREADS = 4, PUTS = 50000 };

struct putter {
    struct fdmux_queue *queue; /* the thread's reference */
    uintptr_t number;          /* of the thread; the upper bits of its items */
    int accepted;
};

struct taker {
    struct fdmux_queue *queue;
    uintptr_t next[THREADS];
    int count;
};

static void *put_many(void *userdata)
{
    struct putter *putter = userdata;

    for (uintptr_t i = 0; i < PUTS; i++) {
        void *item = item_of(putter->number << 24 | i);
        int r = fdmux_queue_put(putter->queue, item);

        while (r == -ENOBUFS) {
            sched_yield();
            r = fdmux_queue_put(putter->queue, item);
        }
        CHECK(r == 0 || r == -ESTALE);
        putter->accepted += r == 0;
    }
    fdmux_queue_unref(putter->queue);
    return NULL;
}

static void start_putters(struct putter putters[THREADS], pthread_t threads[THREADS],
                          struct fdmux_queue *queue)
{
    for (uintptr_t i = 0; i < THREADS; i++) {
        putters[i] = (struct putter){fdmux_queue_ref(queue), i, 0};
        CHECK_EQ(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
    }
}

static int join_putters(struct putter putters[THREADS], pthread_t threads[THREADS])
{
    int accepted = 0;

    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        accepted += putters[i].accepted;
    }
    return accepted;
}

static void take_batch(struct taker *taker)
{
    void *items[BATCH];
    int count = fdmux_queue_take(taker->queue, items, BATCH);

    CHECK(count >= 0);
    for (int i = 0; i < count; i++) {
        uintptr_t item = (uintptr_t)items[i];

        CHECK(item >> 24 < THREADS);
        CHECK_EQ(item & 0xffffff, taker->next[item >> 24]++);
    }
    taker->count += count;
}

static int take_when_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                           void *userdata)
{
    (void)loop, (void)io, (void)events;
    take_batch(userdata);
    return 0;
}

/* The waits have no timeout: a lost wake-up would hang. */
static void check_exactly_once(uint32_t capacity)
{
    struct dropped dropped;
    struct taker taker = {.queue = open_queue(capacity, &dropped)};
    struct fdmux_loop *loop = check_open_loop();
    struct putter putters[THREADS];
    pthread_t threads[THREADS];
    uint64_t io = watch_with(loop, fdmux_queue_fd(taker.queue), FDMUX_READ,
                             take_when_ready, &taker);

    start_putters(putters, threads, taker.queue);
    while (taker.count < THREADS * PUTS) {
        int r = fdmux_loop_dispatch(loop, 10 * MS, NULL, 0);

        CHECK(r == 0 || r == -EINTR);
    }
    CHECK_EQ(join_putters(putters, threads), THREADS * PUTS);
    CHECK(!is_announced(taker.queue));
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    fdmux_loop_destroy(loop);
    fdmux_queue_unref(taker.queue);
    CHECK_EQ(dropped.count, 0);
}

TEST(items_of_four_threads_come_once_and_in_the_order_of_each)
{
    check_exactly_once(0);
}

TEST(items_of_four_threads_come_once_through_a_full_queue)
{
    check_exactly_once(100);
}

/* Each item is taken, dropped or refused. The four threads outlive the queue. */
UNIT_TEST(close_while_threads_put_accounts_for_every_item)
{
    for (int round = 0; round < 5; round++) {
        struct dropped dropped;
        struct taker taker = {.queue = open_queue(0, &dropped)};
        struct putter putters[THREADS];
        pthread_t threads[THREADS];

        start_putters(putters, threads, taker.queue);
        while (taker.count < 1000 * (round + 1))
            take_batch(&taker);
        CHECK_EQ(fdmux_queue_close(taker.queue), 0);
        fdmux_queue_unref(taker.queue);
        CHECK_EQ(join_putters(putters, threads), taker.count + dropped.count);
        CHECK_EQ(fdmux_testing_allocations(), 0);
    }
}

struct player {
    struct fdmux_queue *queue;
    _Atomic int turn; /* rounds that the taker has finished */
};

enum { ROUNDS = 5000 };

static void *put_each_round(void *userdata)
{
    struct player *player = userdata;

    for (int round = 0; round < ROUNDS; round++) {
        while (atomic_load(&player->turn) < round)
            sched_yield();
        put(player->queue, (uintptr_t)round);
    }
    return NULL;
}

/* Each round puts one item and waits for its event: a lost one would hang. */
UNIT_TEST(no_announcement_is_lost)
{
    struct player player = {.queue = open_queue(0, NULL)};
    struct pollfd host = {.fd = fdmux_queue_fd(player.queue), .events = POLLIN};
    pthread_t thread;

    CHECK_EQ(pthread_create(&thread, NULL, put_each_round, &player), 0);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_EQ(poll(&host, 1, -1), 1);
        CHECK_EQ(take_one(player.queue), round);
        atomic_store(&player.turn, round + 1);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fdmux_queue_unref(player.queue);
}

/* ---- fork ---------------------------------------------------------------------- */

static void check_child(struct fdmux_queue *queue, struct dropped *dropped)
{
    int fds = check_open_fds();
    void *item = item_of(7);

    CHECK_EQ(fdmux_queue_put(queue, item), -ECHILD);
    CHECK_EQ(fdmux_queue_take(queue, &item, 1), -ECHILD);
    CHECK_EQ((uintptr_t)item, 7);
    CHECK_EQ(fdmux_queue_fd(queue), -ECHILD);
    CHECK_EQ(fdmux_queue_set_drop(queue, note_drop, NULL), -ECHILD);
    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK_EQ(fdmux_queue_put(queue, item), -ESTALE);
    CHECK(check_open_fds() < fds);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped->count, 0); /* the parent owns the items */
}

static void join_child(pid_t pid)
{
    int status = 1;

    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

UNIT_TEST(child_is_refused_and_leaves_the_parent_alone)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(0, &dropped);
    pid_t pid;

    put(queue, 1);
    put(queue, 2);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        check_child(queue, &dropped);
        CHECK_EQ(fdmux_testing_allocations(), 0);
        _exit(0);
    }
    join_child(pid);
    CHECK(is_announced(queue));
    CHECK_EQ(take_one(queue), 1);
    fdmux_queue_unref(queue);
    CHECK_EQ(dropped.count, 1);
}

/* A thread that the child does not have may hold the lock at the fork. */
UNIT_TEST(child_that_was_forked_while_threads_put_ends_well)
{
    struct dropped dropped;
    struct fdmux_queue *queue = open_queue(1000, &dropped);
    struct putter putters[THREADS];
    pthread_t threads[THREADS];
    struct taker taker = {.queue = queue};

    start_putters(putters, threads, queue);
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid == 0) {
            check_child(queue, &dropped);
            _exit(0);
        }
        join_child(pid);
        take_batch(&taker);
    }
    CHECK_EQ(fdmux_queue_close(queue), 0);
    CHECK_EQ(join_putters(putters, threads), taker.count + dropped.count);
    fdmux_queue_unref(queue);
}
