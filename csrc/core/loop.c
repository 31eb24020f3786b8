/* loop.c: the life of a loop, and the checks at every entry.
 *
 * Closing ends every watcher and the kernel objects; destroying frees the memory too.
 * Both may happen inside a callback or while another thread dispatches: then the
 * dispatch does it at its end (dispatch.c). */
#include "internal.h"

#include <errno.h>

#include "../backends/backend.h"
#include "sys.h"

#define MAGIC UINT64_C(0x66646d75786c6f6f) /* "fdmuxloo" */

/* Apart enough that the tokens of two loops do not meet: 2^32 / golden ratio. */
#define SEED_STEP UINT32_C(0x9e3779b1)

static _Atomic uint32_t next_seed;

int fdmux__options_check(const void *options, size_t size)
{
    /* The first version of every struct: shorter or longer ones are unknown yet. */
    return options == NULL || *(const size_t *)options != size ? -EINVAL : 0;
}

int fdmux__loop_check(struct fdmux_loop *loop)
{
    if (loop == NULL || loop->magic != MAGIC)
        return -EINVAL;
    if (atomic_load_explicit(&loop->is_closed, memory_order_relaxed))
        return -ESTALE;
    if (loop->fork_generation != fdmux__fork_generation())
        return -ECHILD;
    return 0;
}

int fdmux__loop_lock(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    pthread_mutex_lock(&loop->lock);
    if (!atomic_load_explicit(&loop->is_closed, memory_order_relaxed))
        return 0;
    pthread_mutex_unlock(&loop->lock);
    return -ESTALE;
}

void fdmux__loop_unlock(struct fdmux_loop *loop)
{
    pthread_mutex_unlock(&loop->lock);
}

static void init_tables(struct fdmux_loop *loop)
{
    uint32_t seed = atomic_fetch_add(&next_seed, SEED_STEP);

    fdmux__slots_init(&loop->ios, FDMUX__KIND_IO, sizeof(struct fdmux__io), seed);
    fdmux__slots_init(&loop->nodes, FDMUX__KIND_NODE, sizeof(struct fdmux__node), seed);
    fdmux__slots_init(&loop->timers, FDMUX__KIND_TIMER, sizeof(struct fdmux__timer),
                      seed);
    fdmux__slots_init(&loop->hooks, FDMUX__KIND_HOOK, sizeof(struct fdmux__hook), seed);
    atomic_store(&loop->first_hook, FDMUX__SLOT_NONE);
    fdmux__retire_init(loop);
}

static void free_loop(struct fdmux_loop *loop)
{
    fdmux__slots_free(&loop->ios);
    fdmux__slots_free(&loop->nodes);
    fdmux__slots_free(&loop->timers);
    fdmux__slots_free(&loop->hooks);
    fdmux__heap_free(&loop->heap);
    fdmux__post_free(loop);
    fdmux__sys_free(loop->node_by_fd);
    fdmux__sys_free(loop->events);
    (void)pthread_mutex_destroy(&loop->lock); /* nobody else is left */
    loop->magic = 0;
    fdmux__sys_free(loop);
}

static int check_options(const struct fdmux_loop_options *options)
{
    if (options == NULL)
        return 0;
    return fdmux__options_check(options, sizeof *options) < 0 || options->flags != 0
               ? -EINVAL
               : 0;
}

static int open_loop(struct fdmux_loop *loop, const char *backend)
{
    int r = -pthread_mutex_init(&loop->lock, NULL);

    if (r == 0)
        r = fdmux__post_open(loop);
    if (r == 0)
        r = fdmux__wake_open(loop);
    return r < 0 ? r : fdmux__backend_open(loop, backend);
}

int fdmux_loop_create(const struct fdmux_loop_options *options,
                      struct fdmux_loop **ret_loop)
{
    struct fdmux_loop *loop;
    int r = check_options(options);

    if (r < 0 || ret_loop == NULL)
        return -EINVAL;
    loop = fdmux__sys_calloc(1, sizeof *loop);
    if (loop == NULL)
        return -ENOMEM;
    fdmux__fork_watch();
    loop->fork_generation = fdmux__fork_generation();
    loop->wake_read_fd = loop->wake_write_fd = -1;
    loop->magic = MAGIC;
    init_tables(loop);
    r = open_loop(loop, options == NULL ? NULL : options->backend);
    if (r < 0) {
        fdmux_loop_destroy(loop);
        return r;
    }
    *ret_loop = loop;
    return 0;
}

void fdmux__loop_finish(struct fdmux_loop *loop)
{
    bool is_destroyed;

    fdmux__loop_unlock(loop);
    fdmux__post_close(loop);
    if (loop->extension != NULL) {
        fdmux__calling_begin(loop); /* streams are told, and may hold what they need */
        loop->extension->close(loop);
        fdmux__hold_leave_all(loop);
        fdmux__calling_end(loop);
    }
    pthread_mutex_lock(&loop->lock);
    fdmux__io_kill_all(loop);
    fdmux__timer_kill_all(loop);
    fdmux__hook_kill_all(loop);
    fdmux__reap(loop);
    if (loop->backend != NULL)
        loop->backend->close(loop);
    fdmux__wake_close(loop);
    loop->is_finished = true;
    is_destroyed = loop->is_destroyed;
    fdmux__loop_unlock(loop);
    if (is_destroyed)
        free_loop(loop);
}

/* In a child of fork() the lock may be held by a thread that exists no more. */
static void start_closing(struct fdmux_loop *loop)
{
    if (loop->fork_generation != fdmux__fork_generation()) {
        (void)pthread_mutex_init(&loop->lock, NULL);
        (void)pthread_mutex_init(&loop->post_lock, NULL);
        fdmux__post_drop(loop);
        loop->is_dispatching = loop->is_calling = loop->is_waiting = false;
        loop->hold_count = 0; /* the function under way has them, and goes on */
        fdmux__calling_end(loop);
        atomic_store(&loop->waker_count, 0);
    }
    pthread_mutex_lock(&loop->lock);
}

int fdmux__loop_close(struct fdmux_loop *loop)
{
    if (loop == NULL || loop->magic != MAGIC)
        return -EINVAL;
    start_closing(loop);
    if (atomic_exchange(&loop->is_closed, true)) {
        fdmux__loop_unlock(loop);
        return 0;
    }
    if (!loop->is_dispatching) {
        fdmux__loop_finish(loop);
        return 0;
    }
    (void)fdmux__wake_signal(loop); /* the dispatch finishes it */
    fdmux__loop_unlock(loop);
    return 0;
}

struct fdmux_loop *fdmux_loop_destroy(struct fdmux_loop *loop)
{
    bool is_finished;

    if (loop == NULL || loop->magic != MAGIC)
        return NULL;
    (void)fdmux__loop_close(loop); /* cannot fail for a valid loop */
    pthread_mutex_lock(&loop->lock);
    loop->is_destroyed = true;
    is_finished = loop->is_finished;
    fdmux__loop_unlock(loop);
    if (is_finished)
        free_loop(loop);
    return NULL;
}

int64_t fdmux_loop_now(struct fdmux_loop *loop)
{
    (void)loop;
    return fdmux__sys_now();
}

const char *fdmux_loop_backend(struct fdmux_loop *loop)
{
    if (loop == NULL || loop->magic != MAGIC)
        return NULL;
    return loop->backend->name;
}

static void fill_stats(struct fdmux_loop *loop, struct fdmux_loop_stats *stats)
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
    fill_stats(loop, stats);
    fdmux__loop_unlock(loop);
    return 0;
}
