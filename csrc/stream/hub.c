/* hub.c: the hub that the streams of one loop share, made with the first stream.
 *
 * The loop knows streams only as an extension (core/extension.h). It calls the hub
 * before the wait (recycle slots), after io (finish pending streams), and when it
 * closes. */
#include "stream.h"

#include <errno.h>

#include "../backends/backend.h"
#include "../core/node.h"
#include "../platform/sys.h"

/* The shared buffer begins at a page: the kernel copies with "rep movsb", which takes 2
 * to 3 times as long to an unaligned address on some processors (16 KiB on AMD's Zen 3:
 * 9 us instead of 3). */
#define PAGE_SIZE 4096
#define QUEUED_TOTAL_MAX ((size_t)64 << 20)
/* Timeouts are counted in ticks and rounded up: they are never early and less than half
 * a second late, and no byte costs a look at the clock. A tick is O(streams). */
#define TICK_NS (250 * FDMUX__NS_PER_MS)

/* ---- pending streams ----------------------------------------------------------- */

void fdmux__hub_add_pending(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t slot = fdmux__hub_slot(stream);

    if ((stream->state & FDMUX__STREAM_PENDING) != 0)
        return;
    stream->state |= FDMUX__STREAM_PENDING;
    stream->next_pending = FDMUX__SLOT_NONE;
    if (hub->first_pending == FDMUX__SLOT_NONE)
        hub->first_pending = slot;
    else
        fdmux__hub_at(hub, hub->last_pending)->next_pending = slot;
    hub->last_pending = slot;
    fdmux__extension_wake_host(loop);
}

static struct fdmux__stream *take_first(struct fdmux__hub *hub)
{
    struct fdmux__stream *stream = fdmux__hub_at(hub, hub->first_pending);

    hub->first_pending = stream->next_pending;
    stream->state &= ~(uint32_t)FDMUX__STREAM_PENDING;
    return stream;
}

static int run_pending(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return fdmux__stream_finish(loop, stream);
    return stream->layer->hooks->proceed(loop, stream);
}

/* Finish the streams that were pending when this began, in order, and let layers go on
 * with those that have not failed. */
static int finish_pending(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t last = hub->last_pending;
    bool is_last = hub->first_pending == FDMUX__SLOT_NONE;
    int r = 0;

    while (!is_last && r >= 0 && !atomic_load(&loop->is_closing)) {
        is_last = hub->first_pending == last;
        batch->called++;
        r = fdmux__fn_result(loop, run_pending(loop, take_first(hub)));
    }
    return r;
}

/* The slot of a freed stream is used again only in the next batch: functions further up
 * the stack may still use it, and must not find another stream there. */
static void recycle(struct fdmux__hub *hub)
{
    while (hub->first_retired != FDMUX__SLOT_NONE) {
        uint32_t slot = hub->first_retired;

        hub->first_retired = fdmux__hub_at(hub, slot)->base.slot.next_free;
        fdmux__slots_recycle(&hub->streams, slot);
    }
}

static void hub_prepare(struct fdmux_loop *loop)
{
    recycle(fdmux__hub_of(loop));
}

static bool hub_is_pending(const struct fdmux_loop *loop)
{
    return fdmux__hub_of(loop)->first_pending != FDMUX__SLOT_NONE;
}

int fdmux__hub_deliver(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct fdmux_stream_event event)
{
    event.stream =
        fdmux__slots_token(&fdmux__hub_of(loop)->streams, fdmux__hub_slot(stream));
    return fdmux__fn_result(loop, stream->fn(loop, &event, stream->base.userdata));
}

/* ---- ticks --------------------------------------------------------------------- */

/* The stall timeout counts while bytes are queued, if it is set; otherwise the idle
 * timeout does. */
static bool is_overdue(const struct fdmux__hub *hub, const struct fdmux__stream *stream)
{
    bool is_stall = fdmux__stream_queued(stream) > 0 && stream->limits->stall_ticks > 0;
    uint32_t quiet = hub->tick - (is_stall ? stream->stall_tick : stream->tick);
    uint32_t limit =
        is_stall ? stream->limits->stall_ticks : stream->limits->idle_ticks;

    if ((stream->state & (FDMUX__STREAM_LISTENER | FDMUX__STREAM_FAILED)) != 0)
        return false;
    return limit > 0 && quiet > limit;
}

static void tick_listener(struct fdmux_loop *loop, struct fdmux__stream *listener)
{
    if (listener->backoff_ticks == 0 || loop->is_closed)
        return;
    if (fdmux__hub_of(loop)->tick - listener->tick >= listener->backoff_ticks)
        fdmux__stream_watch(loop,
                            listener); /* retries; a failure doubles the back-off */
}

static void tick_stream(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    fdmux__stream_retry_send(loop, stream);
    if ((stream->state & FDMUX__STREAM_LAYERED) != 0)
        stream->layer->hooks->tick(loop, stream);
}

void fdmux__hub_tick(struct fdmux_loop *loop, uint32_t ticks)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t count = fdmux__load(&hub->streams.slot_count);

    hub->tick += ticks;
    for (uint32_t i = 0; i < count; i++) {
        struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if (!fdmux__slot_is_live(&stream->base.slot))
            continue;
        if (is_overdue(hub, stream))
            fdmux__stream_fail(loop, stream, ETIMEDOUT);
        else if ((stream->state & FDMUX__STREAM_LISTENER) != 0)
            tick_listener(loop, stream);
        else
            tick_stream(loop, stream);
    }
}

static int on_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer, (void)userdata;
    fdmux__hub_tick(loop, 1);
    return 0;
}

void fdmux__hub_count_timed(struct fdmux_loop *loop, int change)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    bool was_timed = hub->timed_count > 0;

    hub->timed_count += (uint32_t)change;
    if ((hub->timed_count > 0) == was_timed || atomic_load(&loop->is_closed))
        return;
    /* Neither can fail: the timer exists, and arming needs no memory. */
    if (was_timed)
        (void)fdmux_timer_cancel(loop, hub->timer);
    else
        (void)fdmux_timer_arm(loop, hub->timer, fdmux_loop_now(loop) + TICK_NS,
                              TICK_NS);
}

/* ---- prefetching --------------------------------------------------------------- */

/* The stream of a live watcher, if `prefetch` is for it; or NULL. */
static const struct fdmux__stream *find_prefetched(const struct fdmux__hub *hub,
                                                   const struct fdmux__io *io)
{
    const struct fdmux__stream *stream;

    if (io == NULL || io->fn != fdmux__stream_ready ||
        !fdmux__slot_is_live(&io->base.slot))
        return NULL;
    stream = io->base.userdata;
    return stream->fn == hub->prefetched_fn &&
                   (stream->state & FDMUX__STREAM_FAILED) == 0
               ? stream
               : NULL;
}

static void hub_prefetch(struct fdmux_loop *loop, struct fdmux__io *const *ios,
                         int count)
{
    const struct fdmux__hub *hub = fdmux__hub_of(loop);
    void *found[FDMUX__PREFETCH_MAX];
    uint32_t found_count = 0;

    for (int i = 0; hub->prefetch != NULL && i < count; i++) {
        const struct fdmux__stream *stream = find_prefetched(hub, ios[i]);

        if (stream != NULL)
            found[found_count++] = stream->base.userdata;
    }
    if (found_count > 1)
        hub->prefetch(found, found_count);
}

int fdmux_stream_set_prefetch(struct fdmux_loop *loop, fdmux_stream_fn fn,
                              fdmux_stream_prefetch_fn prefetch)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r < 0)
        return r;
    if (fn == NULL)
        return -EINVAL;
    hub->prefetched_fn = fn;
    hub->prefetch = prefetch;
    return 0;
}

/* ---- life ---------------------------------------------------------------------- */

/* End every stream, with a CLOSED event. */
static void hub_close(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);

    for (uint32_t i = 0; i < fdmux__load(&hub->streams.slot_count); i++) {
        struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if (!fdmux__slot_is_live(&stream->base.slot))
            continue;
        stream->error = ESTALE;
        (void)fdmux__stream_finish(loop, stream); /* no dispatch is left to return it */
    }
    fdmux__slots_free(&hub->streams);
    fdmux__stream_release_limits(hub->last_limits);
    fdmux__sys_free(hub->layer_data);
    fdmux__sys_free(hub->memory);
    fdmux__sys_free(hub);
    loop->extensions[FDMUX__STREAMS] = (struct fdmux__extension){NULL, NULL};
}

static const struct fdmux__extension_hooks hooks = {
    .prepare = hub_prepare,
    .prefetch = hub_prefetch,
    .dispatch = finish_pending,
    .is_pending = hub_is_pending,
    .close = hub_close,
};

static int open_hub(struct fdmux_loop *loop, struct fdmux__hub *hub)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options, .fn = on_tick};

    hub->memory = fdmux__sys_calloc(1, FDMUX__RECEIVE_MAX + PAGE_SIZE);
    if (hub->memory == NULL)
        return -ENOMEM;
    hub->scratch = hub->memory + (PAGE_SIZE - (uintptr_t)hub->memory % PAGE_SIZE);
    hub->first_pending = hub->first_retired = FDMUX__SLOT_NONE;
    hub->queued_total_max = QUEUED_TOTAL_MAX;
    hub->has_edges = (loop->backend->features(loop) & FDMUX_FEATURE_EDGE) != 0;
    fdmux__slots_init(&hub->streams, FDMUX__KIND_STREAM, sizeof(struct fdmux__stream),
                      loop->ios.first_generation);
    return fdmux_timer_add(loop, &options, &hub->timer);
}

int fdmux__hub_get(struct fdmux_loop *loop, struct fdmux__hub **ret_hub)
{
    struct fdmux__hub *hub;
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    *ret_hub = fdmux__hub_of(loop);
    if (*ret_hub != NULL)
        return 0;
    hub = fdmux__sys_calloc(1, sizeof *hub);
    if (hub == NULL)
        return -ENOMEM;
    r = open_hub(loop, hub);
    if (r < 0) {
        fdmux__sys_free(hub->memory);
        fdmux__sys_free(hub);
        return r;
    }
    loop->extensions[FDMUX__STREAMS] = (struct fdmux__extension){&hooks, hub};
    *ret_hub = hub;
    return 0;
}

int fdmux_stream_total_max(struct fdmux_loop *loop, size_t bytes_max)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r == 0)
        hub->queued_total_max = bytes_max;
    return r;
}
