/* queue.c: any thread puts items, one thread takes them in batches.
 *
 * A ring of pointers under one lock, and a bell that is readable exactly while the ring
 * is not empty. The bell is rung and silenced under the lock, so no wake-up can be
 * lost; each costs one system call, when the ring becomes non-empty or empty. Knows
 * nothing about loops: anything that watches descriptors can watch the bell's. */
#include "fdmux.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../platform/sys.h"
#include "gate.h"

#define MAGIC UINT64_C(0x66646d7578717565) /* "fdmuxque" */
#define ITEMS_MIN 64u

struct ring {
    void **items;
    uint32_t first;
    uint32_t count;
    uint32_t capacity; /* 0 or a power of two */
};

struct fdmux_queue {
    uint64_t magic;
    _Atomic uint32_t reference_count;
    uint32_t fork_generation;
    uint32_t count_max; /* 0: no bound */
    atomic_bool is_closed; /* written under the lock, except in a child of fork(2) */
    fdmux__lock lock;  /* guards everything below */
    bool is_rung;
    struct fdmux__bell bell;
    fdmux_queue_drop_fn drop;
    void *userdata;
    struct ring ring;
};

/* ---- the ring ------------------------------------------------------------------ */

static void copy(void **to, void *const *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = from[i];
}

static int grow(struct ring *ring)
{
    uint32_t capacity = ring->capacity == 0 ? ITEMS_MIN : ring->capacity * 2;
    void **items;

    if (capacity <= ring->capacity)
        return -ENOMEM; /* the count would not fit its type */
    items = (void **)fdmux__sys_realloc((void *)ring->items, capacity * sizeof *items);
    if (items == NULL)
        return -ENOMEM;
    /* The ring was full: move its newest items, [0, first), behind the others. */
    copy(items + ring->capacity, items, ring->first);
    ring->items = items;
    ring->capacity = capacity;
    return 0;
}

static void push(struct ring *ring, void *item)
{
    ring->items[(ring->first + ring->count++) & (ring->capacity - 1)] = item;
}

/* Move the first `count` items to `items`; the ring has at least that many. */
static void pop(struct ring *ring, void **items, uint32_t count)
{
    uint32_t straight = ring->capacity - ring->first;

    if (count == 0)
        return;
    if (straight > count)
        straight = count;
    copy(items, ring->items + ring->first, straight);
    copy(items + straight, ring->items, count - straight);
    ring->first = (ring->first + count) & (ring->capacity - 1);
    ring->count -= count;
}

/* ---- checks -------------------------------------------------------------------- */

static bool is_queue(const struct fdmux_queue *queue)
{
    return queue != NULL && queue->magic == MAGIC;
}

static bool is_forked(const struct fdmux_queue *queue)
{
    return queue->fork_generation != fdmux__fork_generation();
}

/* Must come before the lock: in a child of fork(2) it may be held by a thread that does
 * not exist there. */
static int check(struct fdmux_queue *queue)
{
    if (!is_queue(queue))
        return queue == NULL ? -EFAULT : -EINVAL;
    if (atomic_load(&queue->is_closed))
        return -ESTALE;
    return is_forked(queue) ? -ECHILD : 0;
}

/* Check, then lock; check again whether the queue was closed meanwhile. */
static int lock_queue(struct fdmux_queue *queue)
{
    int r = check(queue);

    if (r < 0)
        return r;
    fdmux__lock_take(&queue->lock);
    if (!atomic_load(&queue->is_closed))
        return 0;
    fdmux__lock_release(&queue->lock);
    return -ESTALE;
}

/* Returns `result`. */
static int unlock_queue(struct fdmux_queue *queue, int result)
{
    fdmux__lock_release(&queue->lock);
    return result;
}

/* ---- life ---------------------------------------------------------------------- */

static int check_options(const struct fdmux_queue_options *options)
{
    int r = options == NULL ? 0 : fdmux__options_check(options, sizeof *options);

    return r == 0 && options != NULL && options->reserved != 0 ? -EINVAL : r;
}

static int open_queue(struct fdmux_queue *queue)
{
    int r = fdmux__lock_open(&queue->lock);

    return r < 0 ? r : fdmux__sys_bell_open(&queue->bell);
}

int fdmux_queue_create(const struct fdmux_queue_options *options,
                       struct fdmux_queue **ret_queue)
{
    struct fdmux_queue *queue;
    int r = check_options(options);

    if (r == 0 && ret_queue == NULL)
        r = -EFAULT;
    if (r < 0)
        return r;
    queue = fdmux__sys_calloc(1, sizeof *queue);
    if (queue == NULL)
        return -ENOMEM;
    fdmux__sys_start();
    queue->fork_generation = fdmux__fork_generation();
    atomic_store(&queue->reference_count, 1);
    queue->bell = FDMUX__BELL_NONE;
    queue->magic = MAGIC;
    if (options != NULL) {
        queue->drop = options->drop;
        queue->userdata = options->userdata;
        queue->count_max = options->capacity;
    }
    r = open_queue(queue);
    if (r < 0) {
        fdmux_queue_unref(queue);
        return r;
    }
    *ret_queue = queue;
    return 0;
}

struct fdmux_queue *fdmux_queue_ref(struct fdmux_queue *queue)
{
    if (!is_queue(queue))
        return NULL;
    atomic_fetch_add(&queue->reference_count, 1);
    return queue;
}

static void free_queue(struct fdmux_queue *queue)
{
    /* In a child of fork(2) the lock may be held for ever, by a thread of the parent
     * that was changing the ring. The ring is leaked then. */
    if (fdmux__lock_try(&queue->lock)) {
        fdmux__sys_free((void *)queue->ring.items);
        fdmux__lock_release(&queue->lock);
        fdmux__lock_close(&queue->lock); /* no other thread is left */
    }
    queue->magic = 0;
    fdmux__sys_free(queue);
}

struct fdmux_queue *fdmux_queue_unref(struct fdmux_queue *queue)
{
    if (is_queue(queue) && atomic_fetch_sub(&queue->reference_count, 1) == 1) {
        (void)fdmux_queue_close(queue); /* cannot fail for a valid queue */
        free_queue(queue);
    }
    return NULL;
}

static void drop_all(struct fdmux_queue *queue, struct ring *ring)
{
    while (ring->count > 0) {
        void *item;

        pop(ring, &item, 1);
        if (queue->drop != NULL)
            queue->drop(item, queue->userdata);
    }
    fdmux__sys_free((void *)ring->items);
}

/* Close the child's copies of the descriptors. The items are the parent's. */
static void close_in_child(struct fdmux_queue *queue)
{
    if (!atomic_exchange(&queue->is_closed, true))
        fdmux__sys_bell_close(&queue->bell);
}

int fdmux_queue_close(struct fdmux_queue *queue)
{
    struct ring left;
    int r = check(queue);

    if (r == -ECHILD)
        close_in_child(queue);
    else if (r == 0)
        r = lock_queue(queue);
    if (r < 0)
        return r == -EINVAL || r == -EFAULT ? r : 0;
    atomic_store(&queue->is_closed, true);
    left = queue->ring;
    queue->ring = (struct ring){0};
    fdmux__lock_release(&queue->lock);
    fdmux__sys_bell_close(&queue->bell); /* a closed queue is not rung */
    drop_all(queue, &left);
    return 0;
}

/* ---- use ----------------------------------------------------------------------- */

int fdmux_queue_set_drop(struct fdmux_queue *queue, fdmux_queue_drop_fn drop,
                         void *userdata)
{
    int r = drop == NULL ? -EINVAL : lock_queue(queue);

    if (r < 0)
        return r;
    if (queue->drop == NULL) {
        queue->drop = drop;
        queue->userdata = userdata;
    } else if (queue->drop != drop || queue->userdata != userdata) {
        r = -EBUSY;
    }
    return unlock_queue(queue, r);
}

int fdmux_queue_fd(struct fdmux_queue *queue)
{
    int r = lock_queue(queue);

    return r < 0 ? r : unlock_queue(queue, fdmux__fd_result(queue->bell.read_fd));
}

static int append(struct fdmux_queue *queue, void *item)
{
    struct ring *ring = &queue->ring;
    int r;

    if (queue->count_max > 0 && ring->count >= queue->count_max)
        return -ENOBUFS;
    if (ring->count == ring->capacity && grow(ring) < 0)
        return -ENOMEM;
    if (!queue->is_rung) {
        r = fdmux__sys_bell_ring(&queue->bell);
        if (r < 0)
            return r;
        queue->is_rung = true;
    }
    push(ring, item);
    return 0;
}

int fdmux_queue_put(struct fdmux_queue *queue, void *item)
{
    int r = lock_queue(queue);

    return r < 0 ? r : unlock_queue(queue, append(queue, item));
}

/* If the bell cannot be silenced it counts as rung, and the next call tries again. */
static int take(struct fdmux_queue *queue, void **items, uint32_t capacity)
{
    uint32_t count = queue->ring.count < capacity ? queue->ring.count : capacity;
    int r = 0;

    pop(&queue->ring, items, count);
    if (queue->ring.count == 0 && queue->is_rung) {
        r = fdmux__sys_bell_silence(&queue->bell);
        queue->is_rung = r < 0;
    }
    return count > 0 ? (int)count : r;
}

int fdmux_queue_take(struct fdmux_queue *queue, void **items, int capacity)
{
    int r = capacity < 0 ? -EINVAL : 0;

    if (r == 0)
        r = capacity > 0 && items == NULL ? -EFAULT : lock_queue(queue);
    return r < 0 ? r : unlock_queue(queue, take(queue, items, (uint32_t)capacity));
}
