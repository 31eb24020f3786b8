/* ending.c: how an endpoint ends.
 *
 * Whatever ends an endpoint puts it on the list of pending ones; only
 * fdmux__endpoint_finish, which the loop calls for that list, delivers CLOSED and frees
 * it. So no endpoint is freed while in use. */
#include "datagram.h"

#include <errno.h>

void fdmux__endpoint_mark_failed(struct fdmux_loop *loop,
                                 struct fdmux__endpoint *endpoint, int error)
{
    if ((endpoint->state & FDMUX__ENDPOINT_FAILED) != 0)
        return;
    endpoint->state |= FDMUX__ENDPOINT_FAILED;
    endpoint->error = error;
    fdmux__endpoint_add_pending(loop, endpoint);
}

void fdmux__endpoint_fail(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                          int error)
{
    if ((endpoint->state & FDMUX__ENDPOINT_FAILED) != 0)
        return;
    fdmux__endpoint_mark_failed(loop, endpoint, error);
    fdmux__endpoint_watch(loop, endpoint);
}

void fdmux__endpoint_release_fd(struct fdmux_loop *loop,
                                struct fdmux__endpoint *endpoint)
{
    if (!fdmux__is_fd(endpoint->fd))
        return;
    (void)fdmux_io_remove(loop, endpoint->io); /* -ESTALE when the loop is closing */
    if ((endpoint->flags & FDMUX_DATAGRAM_BORROW) == 0)
        (void)fdmux__sys_close(endpoint->fd); /* close(2): released in any case */
    endpoint->fd = FDMUX_NO_FD;
}

static void release(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);
    uint32_t slot = fdmux__endpoint_slot(endpoint);

    fdmux__endpoint_release_fd(loop, endpoint);
    fdmux__endpoint_drop_queue(endpoint);
    if ((endpoint->state & FDMUX__ENDPOINT_HAS_TIMER) != 0)
        (void)fdmux_timer_remove(loop, endpoint->timer); /* -ESTALE as above */
    fdmux__slots_kill(&shared->endpoints, slot);
    endpoint->base.slot.next_free = shared->first_retired;
    shared->first_retired = slot;
}

static int deliver_closed(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    if ((endpoint->state & FDMUX__ENDPOINT_CLOSED_DELIVERED) != 0)
        return 0;
    endpoint->state |= FDMUX__ENDPOINT_CLOSED_DELIVERED;
    return fdmux__endpoint_deliver(
        loop, endpoint,
        (struct fdmux_datagram_event){.kind = FDMUX_DATAGRAM_CLOSED,
                                      .error = endpoint->error});
}

int fdmux__endpoint_finish(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    int r = deliver_closed(loop, endpoint);
    fdmux_destroyed_fn destroyed = endpoint->base.destroyed;
    void *userdata = endpoint->base.userdata;

    if (fdmux__loop_check(loop) == -ECHILD) {
        /* Not in a child of fork(): it would change the parent's set. */
        fdmux__endpoint_add_pending(loop, endpoint);
        return r;
    }
    release(loop, endpoint);
    if (destroyed != NULL)
        destroyed(userdata);
    return r;
}
