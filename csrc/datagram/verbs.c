/* verbs.c: the functions of fdmux_datagram.h for an existing endpoint.
 *
 * Each finds the endpoint by its token. None frees it: ending.c does, later. */
#include "datagram.h"

#include <errno.h>

/* ---- sending ------------------------------------------------------------------- */

static bool is_address_valid(const void *address, uint16_t size, size_t size_max)
{
    return address == NULL || (size >= sizeof(sa_family_t) && size <= size_max);
}

static bool are_valid(const struct fdmux_datagram *datagrams, uint32_t count)
{
    bool is_valid = count <= INT32_MAX;

    for (uint32_t i = 0; is_valid && i < count; i++) {
        const struct fdmux_datagram *datagram = &datagrams[i];

        is_valid = (datagram->data != NULL || datagram->length == 0) &&
                   datagram->length <= INT32_MAX &&
                   is_address_valid(datagram->address, datagram->address_size,
                                    sizeof(union fdmux__sockaddr)) &&
                   is_address_valid(datagram->local, datagram->local_size,
                                    sizeof(union fdmux__local));
    }
    return is_valid;
}

/* Before the first datagram with segments: can the kernel divide them? */
static void probe_for(struct fdmux__datagrams *shared,
                      const struct fdmux_datagram *datagrams, uint32_t count)
{
    for (uint32_t i = 0; i < count && shared->features < 0; i++) {
        if (datagrams[i].segment_size != 0 &&
            datagrams[i].length > datagrams[i].segment_size &&
            fdmux__datagrams_probe(shared) < 0)
            return; /* out of descriptors: this time they are sent one by one */
    }
}

/* Send from the first on; queue the rest. Returns how many were neither sent nor
 * queued; progress->error tells why the first was not. */
static uint32_t send_or_queue(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                              const struct fdmux_datagram *datagrams, uint32_t count,
                              struct fdmux__progress *progress)
{
    if (endpoint->queued_count == 0)
        (void)fdmux__endpoint_transmit(loop, endpoint, datagrams, count, progress);
    for (; progress->index < count; progress->index++) {
        int r = fdmux__endpoint_queue(loop, endpoint, &datagrams[progress->index],
                                      progress->offset);

        progress->offset = 0;
        if (r < 0 && progress->failed_count++ == 0) {
            progress->error = r;
            progress->failed_index = progress->index;
        }
    }
    return progress->failed_count;
}

static int find_to_send(struct fdmux_loop *loop, uint64_t token,
                        const struct fdmux_datagram *datagrams, uint32_t count,
                        struct fdmux__endpoint **ret_endpoint)
{
    int r = fdmux__endpoint_find(loop, token, ret_endpoint);

    if (r < 0)
        return r;
    if (datagrams == NULL)
        return -EFAULT;
    if (!are_valid(datagrams, count))
        return -EINVAL;
    if (((*ret_endpoint)->state & (FDMUX__ENDPOINT_CLOSING | FDMUX__ENDPOINT_FAILED)) !=
        0)
        return -EPIPE;
    probe_for(fdmux__datagrams_of(loop), datagrams, count);
    return 0;
}

int fdmux_datagram_send(struct fdmux_loop *loop, uint64_t token,
                        const struct fdmux_datagram *datagram)
{
    struct fdmux__progress progress = {0};
    struct fdmux__endpoint *endpoint;
    int r = find_to_send(loop, token, datagram, 1, &endpoint);

    if (r < 0)
        return r;
    (void)send_or_queue(loop, endpoint, datagram, 1, &progress);
    return progress.error;
}

int fdmux_datagram_send_many(struct fdmux_loop *loop, uint64_t token,
                             const struct fdmux_datagram *datagrams, uint32_t count)
{
    struct fdmux__progress progress = {0};
    struct fdmux__endpoint *endpoint;
    int r = find_to_send(loop, token, datagrams, count, &endpoint);

    if (r < 0)
        return r;
    if (send_or_queue(loop, endpoint, datagrams, count, &progress) > 0)
        fdmux__endpoint_note_error(loop, endpoint, -progress.error,
                                   &datagrams[progress.failed_index]);
    return (int)(count - progress.failed_count);
}

/* ---- the others ---------------------------------------------------------------- */

int fdmux_datagram_close(struct fdmux_loop *loop, uint64_t token, uint32_t flags)
{
    struct fdmux__endpoint *endpoint;
    int r = fdmux__endpoint_find(loop, token, &endpoint);

    if (r < 0)
        return r;
    if ((flags & ~(uint32_t)FDMUX_DATAGRAM_DROP) != 0)
        return -EINVAL;
    endpoint->state |= FDMUX__ENDPOINT_CLOSING;
    if (endpoint->queued_count == 0 || (flags & FDMUX_DATAGRAM_DROP) != 0)
        fdmux__endpoint_fail(loop, endpoint, 0);
    else
        fdmux__endpoint_watch(loop, endpoint);
    if ((flags & FDMUX_DATAGRAM_DROP) != 0 &&
        (endpoint->flags & FDMUX_DATAGRAM_BORROW) != 0)
        fdmux__endpoint_release_fd(loop, endpoint);
    return 0;
}

int fdmux_datagram_fd(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__endpoint *endpoint;
    int r = fdmux__endpoint_find(loop, token, &endpoint);

    if (r == 0 && !fdmux__is_fd(endpoint->fd))
        r = -EIDRM;
    return r < 0 ? r : fdmux__fd_result(endpoint->fd);
}

int fdmux_datagram_set_handler(struct fdmux_loop *loop, uint64_t token,
                               const struct fdmux_datagram_handler *handler)
{
    const struct fdmux__datagrams *shared;
    struct fdmux__endpoint *endpoint;
    int r = fdmux__options_check(handler, sizeof *handler);

    if (r == 0)
        r = handler->fn == NULL ? -EINVAL : fdmux__loop_check(loop);
    if (r < 0 && r != -ECHILD)
        return r;
    /* Allowed in a child of fork(), before fdmux_loop_after_fork. */
    shared = fdmux__datagrams_of(loop);
    endpoint = shared == NULL ? NULL : fdmux__slots_find(&shared->endpoints, token);
    if (endpoint == NULL)
        return r < 0 ? r : -EIDRM;
    endpoint->fn = handler->fn;
    fdmux__watcher_hand_on(&endpoint->base, handler->destroyed, handler->userdata);
    return 0;
}

int fdmux_datagram_await_writable(struct fdmux_loop *loop, uint64_t token,
                                  uint32_t queue_low)
{
    struct fdmux__endpoint *endpoint;
    int r = fdmux__endpoint_find(loop, token, &endpoint);

    if (r < 0)
        return r;
    endpoint->queue_low = queue_low;
    endpoint->state |= FDMUX__ENDPOINT_WRITABLE_WANTED;
    return 0;
}

int fdmux_datagram_stats(struct fdmux_loop *loop, uint64_t token,
                         struct fdmux_datagram_stats *stats)
{
    struct fdmux__endpoint *endpoint;
    int r = fdmux__options_check(stats, sizeof *stats);

    if (r == 0)
        r = fdmux__endpoint_find(loop, token, &endpoint);
    if (r != 0)
        return r;
    *stats = endpoint->stats;
    stats->struct_size = sizeof *stats;
    stats->kernel_dropped =
        !fdmux__is_fd(endpoint->fd) ? 0 : fdmux__sys_socket_drops(endpoint->fd);
    stats->queued = endpoint->queued;
    stats->queued_count = endpoint->queued_count;
    return 0;
}

int fdmux_datagram_queued(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__endpoint *endpoint;
    int r = fdmux__endpoint_find(loop, token, &endpoint);

    return r < 0 ? r : (int)endpoint->queued; /* at most queue_max, an int32_t */
}

static int set_paused(struct fdmux_loop *loop, uint64_t token, bool is_paused)
{
    struct fdmux__endpoint *endpoint;
    int r = fdmux__endpoint_find(loop, token, &endpoint);

    if (r < 0)
        return r;
    if (is_paused)
        endpoint->state |= FDMUX__ENDPOINT_PAUSED;
    else
        endpoint->state &= ~(uint32_t)FDMUX__ENDPOINT_PAUSED;
    fdmux__endpoint_watch(loop, endpoint);
    return 0;
}

int fdmux_datagram_pause(struct fdmux_loop *loop, uint64_t token)
{
    return set_paused(loop, token, true);
}

int fdmux_datagram_resume(struct fdmux_loop *loop, uint64_t token)
{
    return set_paused(loop, token, false);
}
