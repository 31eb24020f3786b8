/* host.c: the one pollable descriptor or handle of a loop, and its deadline (host.h).
 *
 * The host watches this descriptor and dispatches when it is readable. It holds a timer
 * for the next deadline, so the host needs no timer of its own. */
#include "host.h"

#include <errno.h>

#include "../backends/backend.h"
#include "gate.h"
#include "wake.h"

/* Outside of a dispatch the timer is only moved earlier: one that is too early costs
 * one dispatch that finds nothing to do. */
void fdmux__host_arm(struct fdmux_loop *loop, bool may_move_later)
{
    int64_t deadline_ns = fdmux__next_deadline(loop);

    if (deadline_ns < loop->armed_deadline_ns ||
        (may_move_later && deadline_ns != loop->armed_deadline_ns)) {
        if (loop->backend->arm(loop, deadline_ns) < 0)
            return; /* without a timer the host asks fdmux_loop_next_deadline */
        loop->armed_deadline_ns = deadline_ns;
    }
}

void fdmux__deadline_changed(struct fdmux_loop *loop)
{
    if (loop->is_waiting && fdmux__heap_deadline(&loop->heap) < loop->wait_deadline_ns)
        (void)fdmux__wake_ring(loop); /* another thread waits for the old deadline */
    else if (loop->is_hosted && !loop->is_dispatching)
        fdmux__host_arm(loop, false);
}

void fdmux__host_notify(struct fdmux_loop *loop)
{
    if (loop->is_hosted && !loop->is_dispatching &&
        fdmux__load(&loop->first_hook) != FDMUX__SLOT_NONE)
        (void)fdmux__wake_ring(loop); /* fails only where a sandbox forbids write(2) */
}

int fdmux_loop_next_deadline(struct fdmux_loop *loop, int64_t *ret_deadline_ns)
{
    int r = ret_deadline_ns == NULL ? -EFAULT : fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    /* During a batch only the dispatching thread may read the events and posts. */
    *ret_deadline_ns = loop->is_calling ? fdmux__heap_deadline(&loop->heap)
                                        : fdmux__next_deadline(loop);
    fdmux__loop_unlock(loop);
    return 0;
}

static int rest(struct fdmux_loop *loop, bool may_move_later)
{
    int r = loop->backend->rest != NULL ? loop->backend->rest(loop) : 0;

    if (r >= 0)
        fdmux__host_arm(loop, may_move_later);
    return r;
}

void fdmux__host_rest(struct fdmux_loop *loop)
{
    int r = rest(loop, true);

    if (r < 0 && loop->pending_error == 0)
        loop->pending_error = r;
}

/* The dispatch that is under way, perhaps in another thread, does it at its end. */
static int begin_hosting(struct fdmux_loop *loop)
{
    int r = 0;

    if (loop->is_hosted)
        return 0;
    loop->armed_deadline_ns = FDMUX__NEVER;
    if (!loop->is_dispatching)
        r = rest(loop, false);
    loop->is_hosted = r >= 0;
    return r;
}

int fdmux_loop_fd(struct fdmux_loop *loop)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    if (loop->backend->host_fd == NULL) {
        r = -EOPNOTSUPP;
    } else {
        r = loop->backend->host_fd(loop);
        if (r >= 0)
            (void)begin_hosting(loop); /* fails only with a handle */
    }
    fdmux__loop_unlock(loop);
    return r;
}

int fdmux_loop_handle(struct fdmux_loop *loop, void **ret_handle)
{
    void *handle = NULL;
    int r = ret_handle == NULL ? -EFAULT : fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    r = loop->backend->host_handle == NULL ? -EOPNOTSUPP
                                           : loop->backend->host_handle(loop, &handle);
    if (r >= 0)
        r = begin_hosting(loop);
    fdmux__loop_unlock(loop);
    if (r >= 0)
        *ret_handle = handle;
    return r;
}

void fdmux__extension_wake_host(struct fdmux_loop *loop)
{
    if (!loop->is_hosted || loop->is_dispatching || fdmux__loop_lock(loop) < 0)
        return;
    fdmux__deadline_changed(loop);
    fdmux__loop_unlock(loop);
}
