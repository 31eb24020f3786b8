/* loop.c: create, close and destroy loops.
 *
 * Closing ends every watcher and closes the kernel objects; the last reference frees
 * the memory. Both may happen inside a function of the loop or while another thread
 * dispatches; then that dispatch finishes the loop at its end. */
#include "loop.h"

#include <errno.h>

#include "../backends/backend.h"
#include "../backends/choose.h"
#include "../platform/sys.h"
#include "finish.h"
#include "fork.h"
#include "gate.h"
#include "hook.h"
#include "node.h"
#include "post.h"
#include "retire.h"
#include "timer.h"
#include "wake.h"

/* The distance between the first generations of two loops: 2^32 / golden ratio, so that
 * their tokens do not coincide. */
#define SEED_STEP UINT32_C(0x9e3779b1)

static _Atomic uint32_t next_seed;

static void init_tables(struct fdmux_loop *loop)
{
    uint32_t seed = atomic_fetch_add(&next_seed, SEED_STEP);

    fdmux__slots_init(&loop->ios, FDMUX__KIND_IO, sizeof(struct fdmux__io), seed);
    fdmux__slots_init(&loop->nodes, FDMUX__KIND_NODE, sizeof(struct fdmux__node), seed);
    fdmux__slots_init(&loop->timers, FDMUX__KIND_TIMER, sizeof(struct fdmux__timer),
                      seed);
    fdmux__slots_init(&loop->hooks, FDMUX__KIND_HOOK, sizeof(struct fdmux__hook), seed);
    atomic_store(&loop->first_hook, FDMUX__SLOT_NONE);
    atomic_store(&loop->first_close_hook, FDMUX__SLOT_NONE);
    fdmux__retire_init(loop);
}

static int check_options(const struct fdmux_loop_options *options)
{
    int r = options == NULL ? 0 : fdmux__options_check(options, sizeof *options);

    return r == 0 && options != NULL && options->flags != 0 ? -EINVAL : r;
}

static int open_loop(struct fdmux_loop *loop, const char *backend)
{
    int r = fdmux__lock_open(&loop->lock);

    if (r == 0)
        r = fdmux__post_open(loop);
    return r < 0 ? r : fdmux__backend_open(loop, backend);
}

int fdmux_loop_create(const struct fdmux_loop_options *options,
                      struct fdmux_loop **ret_loop)
{
    struct fdmux_loop *loop;
    int r = check_options(options);

    if (r == 0 && ret_loop == NULL)
        r = -EFAULT;
    if (r < 0)
        return r;
    loop = fdmux__sys_calloc(1, sizeof *loop);
    if (loop == NULL)
        return -ENOMEM;
    fdmux__sys_start();
    loop->fork_generation = fdmux__fork_generation();
    atomic_store(&loop->reference_count, 1);
    loop->bell = FDMUX__BELL_NONE;
    loop->magic = FDMUX__LOOP_MAGIC;
    init_tables(loop);
    r = open_loop(loop, options == NULL ? NULL : options->backend);
    if (r < 0) {
        fdmux_loop_destroy(loop);
        return r;
    }
    *ret_loop = loop;
    return 0;
}

/* In a child of fork(2) a thread that does not exist there may hold the lock. */
static void lock_to_close(struct fdmux_loop *loop)
{
    if (fdmux__loop_is_forked(loop))
        fdmux__fork_forget_threads(loop);
    fdmux__lock_take(&loop->lock);
}

int fdmux__loop_close(struct fdmux_loop *loop)
{
    if (!fdmux__is_loop(loop))
        return -EINVAL;
    lock_to_close(loop);
    if (atomic_exchange(&loop->is_closing, true)) {
        fdmux__loop_unlock(loop);
        return 0;
    }
    if (fdmux__load(&loop->first_close_hook) == FDMUX__SLOT_NONE)
        atomic_store(&loop->is_closed, true); /* nobody needs it any more */
    if (!loop->is_dispatching) {
        fdmux__loop_finish(loop);
        return 0;
    }
    (void)fdmux__wake_ring(loop); /* the dispatch finishes the loop */
    fdmux__loop_unlock(loop);
    return 0;
}

struct fdmux_loop *fdmux_loop_ref(struct fdmux_loop *loop)
{
    if (!fdmux__is_loop(loop))
        return NULL;
    atomic_fetch_add(&loop->reference_count, 1);
    return loop;
}

struct fdmux_loop *fdmux_loop_unref(struct fdmux_loop *loop)
{
    bool is_finished;

    if (!fdmux__is_loop(loop) || atomic_fetch_sub(&loop->reference_count, 1) != 1)
        return NULL;
    (void)fdmux__loop_close(loop); /* cannot fail for a valid loop */
    fdmux__lock_take(&loop->lock);
    loop->is_destroyed = true;
    is_finished = loop->is_finished;
    fdmux__loop_unlock(loop);
    if (is_finished)
        fdmux__loop_free(loop);
    return NULL;
}

struct fdmux_loop *fdmux_loop_destroy(struct fdmux_loop *loop)
{
    (void)fdmux__loop_close(loop); /* -EINVAL for what is no loop */
    return fdmux_loop_unref(loop);
}

int64_t fdmux_loop_now(struct fdmux_loop *loop)
{
    (void)loop;
    return fdmux__sys_now();
}

const char *fdmux_loop_backend(struct fdmux_loop *loop)
{
    if (!fdmux__is_loop(loop))
        return NULL;
    return loop->backend->name;
}

static void read_stats(struct fdmux_loop *loop, struct fdmux_loop_stats *stats)
{
    const struct fdmux__counters *counters = &loop->counters;

    stats->iteration_count = atomic_load(&counters->iterations);
    stats->io_called_count = atomic_load(&counters->io_called);
    stats->io_collected_count = atomic_load(&counters->io_collected);
    stats->timer_count = atomic_load(&counters->timers);
    stats->post_count = atomic_load(&counters->posts);
    stats->stale_event_count = atomic_load(&counters->stale_events);
    stats->rebuild_count = atomic_load(&counters->rebuilds);
    stats->io_live = loop->ios.live_count;
    stats->timer_live = loop->timers.live_count;
    stats->hook_live = loop->hooks.live_count;
    stats->fd_live = loop->nodes.live_count;
    stats->features = loop->backend->features(loop);
    stats->reserved = 0;
}

int fdmux_loop_stats(struct fdmux_loop *loop, struct fdmux_loop_stats *stats)
{
    int r = fdmux__options_check(stats, sizeof *stats);

    if (r == 0)
        r = fdmux__loop_lock(loop);
    if (r < 0)
        return r;
    read_stats(loop, stats);
    fdmux__loop_unlock(loop);
    return 0;
}
