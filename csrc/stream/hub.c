/* hub.c: what the streams of one loop share.
 *
 * The loop knows streams only as an extension (internal.h): something to serve after
 * io, something that may be waiting, something to close. Made on first use. */
#include "stream.h"

#include <errno.h>
#include <limits.h>

#include "../backends/backend.h"
#include "../core/sys.h"

#define QUEUED_TOTAL_MAX ((size_t)64 << 20)
/* Timeouts are counted in ticks, rounded up: never early, less than half a second late,
 * and a byte costs no clock. A sweep is O(streams). */
#define TICK_NS (250 * FDMUX__NS_PER_MS)

static struct fdmux__hub *hub_of(const struct fdmux_loop *loop)
{
    return loop->extension_data;
}

/* ---- pending streams ----------------------------------------------------------- */

void fdmux__hub_announce(struct fdmux_loop *loop)
{
    if (!loop->is_hosted || loop->is_dispatching || fdmux__loop_lock(loop) < 0)
        return;
    fdmux__deadline_changed(loop);
    fdmux__loop_unlock(loop);
}

void fdmux__hub_pend(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    struct fdmux__hub *hub = hub_of(loop);
    struct fdmux__stream_list *list =
        stream->fn != NULL ? &hub->called : &hub->collected;
    uint32_t slot = fdmux__hub_slot(stream);

    if ((stream->state & FDMUX__STREAM_PENDING) != 0)
        return;
    stream->state |= FDMUX__STREAM_PENDING;
    stream->next_pending = FDMUX__SLOT_NONE;
    if (list->first == FDMUX__SLOT_NONE)
        list->first = slot;
    else
        fdmux__hub_at(hub, list->last)->next_pending = slot;
    list->last = slot;
    fdmux__hub_announce(loop);
}

static struct fdmux__stream *take_first(struct fdmux__hub *hub,
                                        struct fdmux__stream_list *list)
{
    struct fdmux__stream *stream = fdmux__hub_at(hub, list->first);

    list->first = stream->next_pending;
    stream->state &= ~(uint32_t)FDMUX__STREAM_PENDING;
    return stream;
}

static bool can_serve(const struct fdmux__hub *hub, uint32_t slot)
{
    const struct fdmux__stream *stream = fdmux__slots_at(&hub->streams, slot);

    return (stream->state & FDMUX__STREAM_FAILED) != 0
               ? fdmux__hub_has_records(hub, stream)
               : fdmux__hub_has_room(hub, stream);
}

static int serve(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    if ((stream->state & FDMUX__STREAM_FAILED) != 0)
        return fdmux__stream_finish(loop, stream);
    stream->state &= ~(uint32_t)FDMUX__STREAM_DEFERRED;
    fdmux__stream_watch(loop, stream); /* it looked away if nothing was collecting */
    if ((stream->state & FDMUX__STREAM_LISTENER) != 0)
        return 0; /* level-triggered: reported again */
    return fdmux__stream_receive(loop, stream);
}

/* Those that were waiting when this began, in their order; a full batch ends it. */
static int serve_list(struct fdmux_loop *loop, struct fdmux__batch *batch,
                      struct fdmux__stream_list *list)
{
    struct fdmux__hub *hub = hub_of(loop);
    bool is_last = list->first == FDMUX__SLOT_NONE;
    uint32_t last = list->last;
    int r = 0;

    while (!is_last && r >= 0 && can_serve(hub, list->first) &&
           !atomic_load(&loop->is_closed)) {
        is_last = list->first == last;
        batch->called++;
        r = serve(loop, take_first(hub, list));
    }
    return r;
}

static int serve_pending(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    struct fdmux__hub *hub = hub_of(loop);
    int r = serve_list(loop, batch, &hub->called);

    return r < 0 ? r : serve_list(loop, batch, &hub->collected);
}

/* Slots of streams that are over were kept apart for one batch: whoever reads its
 * records may index a table with them. */
static void recycle(struct fdmux__hub *hub)
{
    while (hub->first_retired != FDMUX__SLOT_NONE) {
        uint32_t slot = hub->first_retired;

        hub->first_retired = fdmux__hub_at(hub, slot)->base.slot.next_free;
        fdmux__slots_recycle(&hub->streams, slot);
    }
}

int fdmux__hub_serve(struct fdmux_loop *loop)
{
    struct fdmux__batch batch = {.capacity = 0};

    return serve_list(loop, &batch, &hub_of(loop)->collected);
}

static void hub_prepare(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub = hub_of(loop);

    if (hub->batch != NULL && hub->batch->record_count > 0)
        return; /* still being read */
    hub->batch_number++;
    recycle(hub);
}

static bool hub_is_pending(const struct fdmux_loop *loop)
{
    const struct fdmux__hub *hub = hub_of(loop);

    return hub->called.first != FDMUX__SLOT_NONE ||
           (hub->collected.first != FDMUX__SLOT_NONE &&
            can_serve(hub, hub->collected.first));
}

static bool hub_has_collected(const struct fdmux_loop *loop)
{
    const struct fdmux__hub *hub = hub_of(loop);

    return hub->batch != NULL && hub->batch->record_count > 0;
}

/* More than an empty batch holds would be deferred: looked at twice, and out of cache
 * the second time. The kernel keeps what is not asked for, in its order. */
static int hub_room(const struct fdmux_loop *loop)
{
    const struct fdmux__hub *hub = hub_of(loop);

    if (hub->collected_live == 0 || hub->batch == NULL || hub->batch->record_count > 0)
        return INT_MAX;
    return (int)(hub->batch->record_capacity - FDMUX__RECORDS_MAX);
}

/* ---- records ------------------------------------------------------------------- */

int fdmux__hub_deliver(struct fdmux_loop *loop, struct fdmux__stream *stream,
                       struct fdmux_stream_record record, const void *data)
{
    struct fdmux__hub *hub = hub_of(loop);

    record.slot = fdmux__hub_slot(stream);
    record.stream = fdmux__slots_token(&hub->streams, record.slot);
    if (stream->fn != NULL)
        return stream->fn(loop, &record, data, stream->base.userdata);
    if (hub->batch != NULL && hub->batch->record_count < hub->batch->record_capacity)
        hub->batch->records[hub->batch->record_count++] = record;
    return 0;
}

/* ---- ticks --------------------------------------------------------------------- */

/* A queue is what the stall timeout is for; without one, or the other, silence is. */
static bool is_overdue(const struct fdmux__hub *hub, const struct fdmux__stream *stream)
{
    bool is_stall = stream->queue_count > 0 && stream->limits->stall_ticks > 0;
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
    if (hub_of(loop)->tick - listener->tick >= listener->backoff_ticks)
        fdmux__stream_watch(loop, listener); /* tries again; keeps its back-off */
}

void fdmux__hub_tick(struct fdmux_loop *loop, uint32_t ticks)
{
    struct fdmux__hub *hub = hub_of(loop);
    uint32_t count = fdmux__load(&hub->streams.slot_count);

    hub->tick += ticks;
    for (uint32_t i = 0; i < count; i++) {
        struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if ((fdmux__load(&stream->base.slot.generation) & 1) == 0)
            continue;
        if (is_overdue(hub, stream))
            fdmux__stream_fail(loop, stream, ETIMEDOUT);
        else if ((stream->state & FDMUX__STREAM_LISTENER) != 0)
            tick_listener(loop, stream);
        else
            fdmux__stream_fatten(loop, stream);
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
    struct fdmux__hub *hub = hub_of(loop);
    bool was_timed = hub->timed_count > 0;

    hub->timed_count += (uint32_t)change;
    if ((hub->timed_count > 0) == was_timed || atomic_load(&loop->is_closed))
        return;
    /* Neither can fail: the timer is ours, and arming needs no memory. */
    if (was_timed)
        (void)fdmux_timer_cancel(loop, hub->timer);
    else
        (void)fdmux_timer_arm(loop, hub->timer, fdmux_loop_now(loop) + TICK_NS,
                              TICK_NS);
}

/* ---- life ---------------------------------------------------------------------- */

/* Everything ends; collected streams get no record, since nobody will read it. */
static void hub_close(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub = hub_of(loop);

    hub->batch = NULL;
    for (uint32_t i = 0; i < fdmux__load(&hub->streams.slot_count); i++) {
        struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if ((fdmux__load(&stream->base.slot.generation) & 1) == 0)
            continue;
        stream->error = ESTALE;
        (void)fdmux__stream_finish(loop, stream); /* nobody is left to be told */
    }
    fdmux__slots_free(&hub->streams);
    fdmux__sys_free(hub->scratch);
    fdmux__sys_free(hub);
    loop->extension_data = NULL;
    loop->extension = NULL;
}

static const struct fdmux__extension extension = {
    .prepare = hub_prepare,
    .dispatch = serve_pending,
    .is_pending = hub_is_pending,
    .has_collected = hub_has_collected,
    .room = hub_room,
    .close = hub_close,
};

static int open_hub(struct fdmux_loop *loop, struct fdmux__hub *hub)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options, .fn = on_tick};

    hub->scratch = fdmux__sys_calloc(1, FDMUX__RECEIVE_MAX);
    if (hub->scratch == NULL)
        return -ENOMEM;
    hub->called.first = hub->collected.first = hub->first_retired = FDMUX__SLOT_NONE;
    hub->queued_total_max = QUEUED_TOTAL_MAX;
    hub->has_edges = (loop->backend->features(loop) & FDMUX_FEATURE_EDGE) != 0;
    hub->batch_number = 1; /* 0 is in no batch: what a new stream has */
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
    *ret_hub = hub_of(loop);
    if (*ret_hub != NULL)
        return 0;
    hub = fdmux__sys_calloc(1, sizeof *hub);
    if (hub == NULL)
        return -ENOMEM;
    r = open_hub(loop, hub);
    if (r < 0) {
        fdmux__sys_free(hub->scratch);
        fdmux__sys_free(hub);
        return r;
    }
    loop->extension_data = hub;
    loop->extension = &extension;
    *ret_hub = hub;
    return 0;
}

int fdmux_stream_collect(struct fdmux_loop *loop, struct fdmux_stream_batch *batch)
{
    struct fdmux__hub *hub;
    int r;

    if (batch != NULL &&
        (fdmux__options_check(batch, sizeof *batch) < 0 || batch->records == NULL ||
         batch->arena == NULL || batch->record_capacity < 16 ||
         batch->record_capacity > INT32_MAX || batch->arena_size < FDMUX__RECEIVE_MAX ||
         batch->record_count > batch->record_capacity ||
         batch->arena_used > batch->arena_size))
        return -EINVAL;
    r = fdmux__hub_get(loop, &hub);
    if (r < 0)
        return r;
    hub->batch = batch;
    hub->batch_number++;
    fdmux__hub_announce(loop);
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
