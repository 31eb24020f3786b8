/* stream_glue.c: functions for streams that Python calls beyond fdmux_stream.h
 * (glue.h). */
#include "glue.h"

#include "dispatch.h"
#include "stream.h"

int fdmux_py_stream_finish_pending(struct fdmux_loop *loop)
{
    return fdmux__loop_dispatch_extension(loop);
}

int fdmux_py_stream_tick(struct fdmux_loop *loop, uint32_t ticks)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r == 0)
        fdmux__hub_tick(loop, ticks);
    return r;
}

uint64_t fdmux_py_stream_refused(const struct fdmux_loop *loop)
{
    return atomic_load_explicit(&loop->counters.refused, memory_order_relaxed);
}

void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__stream *stream;

    if (fdmux__stream_find(loop, token, &stream) < 0)
        return NULL;
    atomic_fetch_add(&stream->limits->reference_count, 1);
    return stream->limits;
}

void fdmux_py_totals_read(void *held, struct fdmux_py_stream_totals *ret_totals)
{
    const struct fdmux__stream_totals *totals =
        &((struct fdmux__stream_limits *)held)->totals;

    *ret_totals = (struct fdmux_py_stream_totals){
        .received = totals->received,
        .sent = totals->sent,
        .queued = totals->queued,
        .dropped = totals->dropped,
        .accepted = totals->accepted,
        .refused = totals->refused,
    };
}

void fdmux_py_totals_release(void *held)
{
    fdmux__stream_release_limits(held);
}
