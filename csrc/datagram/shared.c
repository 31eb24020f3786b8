/* shared.c: what the endpoints of one loop share, made with the first of them.
 *
 * The loop knows endpoints only as an extension (core/extension.h). It calls this file
 * before the wait (recycle slots), after io (run pending endpoints), and when it
 * closes.
 */
#include "datagram.h"

#include <errno.h>

#define PROBE_SEGMENT 1200

/* ---- pending endpoints --------------------------------------------------------- */

void fdmux__endpoint_add_pending(struct fdmux_loop *loop,
                                 struct fdmux__endpoint *endpoint)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);
    uint32_t slot = fdmux__endpoint_slot(endpoint);

    if ((endpoint->state & FDMUX__ENDPOINT_PENDING) != 0)
        return;
    endpoint->state |= FDMUX__ENDPOINT_PENDING;
    endpoint->next_pending = FDMUX__SLOT_NONE;
    if (shared->first_pending == FDMUX__SLOT_NONE)
        shared->first_pending = slot;
    else
        fdmux__endpoint_at(shared, shared->last_pending)->next_pending = slot;
    shared->last_pending = slot;
    fdmux__extension_wake_host(loop);
}

static struct fdmux__endpoint *take_first(struct fdmux__datagrams *shared)
{
    struct fdmux__endpoint *endpoint =
        fdmux__endpoint_at(shared, shared->first_pending);

    shared->first_pending = endpoint->next_pending;
    endpoint->state &= ~(uint32_t)FDMUX__ENDPOINT_PENDING;
    return endpoint;
}

/* An endpoint that has noted an error and has ended tells the error first. */
static int run_one(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    int r = 0;

    if (endpoint->noted_error != 0)
        r = fdmux__endpoint_tell_error(loop, endpoint);
    /* The function may have ended it just now: then it is on the list again. */
    if ((endpoint->state & (FDMUX__ENDPOINT_FAILED | FDMUX__ENDPOINT_PENDING)) !=
        FDMUX__ENDPOINT_FAILED)
        return r;
    if (r >= 0)
        return fdmux__endpoint_finish(loop, endpoint);
    fdmux__endpoint_add_pending(loop, endpoint); /* in the next batch */
    return r;
}

/* Run the endpoints that were pending when this began, in order. */
static int run_pending(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);
    uint32_t last = shared->last_pending;
    bool is_last = shared->first_pending == FDMUX__SLOT_NONE;
    int r = 0;

    while (!is_last && r >= 0 && !atomic_load(&loop->is_closing)) {
        is_last = shared->first_pending == last;
        batch->called++;
        r = fdmux__fn_result(loop, run_one(loop, take_first(shared)));
    }
    return r;
}

/* The slot of a freed endpoint is used again only in the next batch: functions further
 * up the stack may still use it, and must not find another endpoint there. */
static void prepare(struct fdmux_loop *loop)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);

    while (shared->first_retired != FDMUX__SLOT_NONE) {
        uint32_t slot = shared->first_retired;

        shared->first_retired = fdmux__endpoint_at(shared, slot)->base.slot.next_free;
        fdmux__slots_recycle(&shared->endpoints, slot);
    }
}

static bool is_pending(const struct fdmux_loop *loop)
{
    return fdmux__datagrams_of(loop)->first_pending != FDMUX__SLOT_NONE;
}

int fdmux__endpoint_deliver(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                            struct fdmux_datagram_event event)
{
    event.endpoint = fdmux__slots_token(&fdmux__datagrams_of(loop)->endpoints,
                                        fdmux__endpoint_slot(endpoint));
    return fdmux__fn_result(loop, endpoint->fn(loop, &event, endpoint->base.userdata));
}

/* ---- features ------------------------------------------------------------------ */

/* What a socket made for that can do. Returns FDMUX_DATAGRAM_CAN_ bits. */
static int probe(fdmux_fd fd)
{
    struct fdmux__message message;
    struct fdmux__part part = {.size = 0};
    int features = 0;
    int r;

    fdmux__message_set(&message, &part, NULL, 0);
    r = fdmux__sys_receive_many(fd, &message, 1);

    if (r != -ENOSYS && r != -EPERM)
        features |= FDMUX_DATAGRAM_CAN_BATCH;
    if (fdmux__sys_check_segments(fd, PROBE_SEGMENT) == 0)
        features |= FDMUX_DATAGRAM_CAN_GSO;
    if (fdmux__sys_want_joined(fd) == 0)
        features |= FDMUX_DATAGRAM_CAN_GRO;
    return features;
}

static int open_probe(fdmux_fd *ret_fd)
{
    int r = fdmux__sys_socket(AF_INET, SOCK_DGRAM, ret_fd);

    return r == -EAFNOSUPPORT ? fdmux__sys_socket(AF_INET6, SOCK_DGRAM, ret_fd) : r;
}

int fdmux__datagrams_probe(struct fdmux__datagrams *shared)
{
    fdmux_fd fd;
    int r;

    if (shared->features >= 0)
        return shared->features;
    r = open_probe(&fd);
    if (r < 0)
        return r; /* asked again by the next call */
    shared->features = probe(fd);
    shared->has_gso = (shared->features & FDMUX_DATAGRAM_CAN_GSO) != 0;
    (void)fdmux__sys_close(fd); /* close(2): released in any case */
    return shared->features;
}

int fdmux_datagram_features(struct fdmux_loop *loop)
{
    struct fdmux__datagrams *shared;
    int r = fdmux__datagrams_get(loop, &shared);

    return r < 0 ? r : fdmux__datagrams_probe(shared);
}

/* ---- life ---------------------------------------------------------------------- */

/* End every endpoint, with a CLOSED event. */
static void close_all(struct fdmux_loop *loop)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);

    for (uint32_t i = 0; i < fdmux__load(&shared->endpoints.slot_count); i++) {
        struct fdmux__endpoint *endpoint = fdmux__endpoint_at(shared, i);

        if (!fdmux__slot_is_live(&endpoint->base.slot))
            continue;
        endpoint->error = ESTALE;
        (void)fdmux__endpoint_finish(loop, endpoint); /* no dispatch is left for it */
    }
    fdmux__slots_free(&shared->endpoints);
    fdmux__sys_free(shared->inbox.memory);
    fdmux__sys_free(shared);
    loop->extensions[FDMUX__DATAGRAMS] = (struct fdmux__extension){NULL, NULL};
}

static const struct fdmux__extension_hooks hooks = {
    .prepare = prepare,
    .dispatch = run_pending,
    .is_pending = is_pending,
    .close = close_all,
};

int fdmux__datagrams_get(struct fdmux_loop *loop, struct fdmux__datagrams **ret_shared)
{
    struct fdmux__datagrams *shared;
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    *ret_shared = fdmux__datagrams_of(loop);
    if (*ret_shared != NULL)
        return 0;
    shared = fdmux__sys_calloc(1, sizeof *shared);
    if (shared == NULL)
        return -ENOMEM;
    /* Only the pages that datagrams arrive in get memory. */
    shared->inbox.memory = fdmux__sys_calloc(1, fdmux__inbox_memory_size());
    if (shared->inbox.memory == NULL) {
        fdmux__sys_free(shared);
        return -ENOMEM;
    }
    shared->first_pending = shared->first_retired = FDMUX__SLOT_NONE;
    shared->features = -1;
    shared->has_receive_many = shared->has_send_many = true;
    fdmux__slots_init(&shared->endpoints, FDMUX__KIND_DATAGRAM,
                      sizeof(struct fdmux__endpoint), loop->ios.first_generation);
    loop->extensions[FDMUX__DATAGRAMS] = (struct fdmux__extension){&hooks, shared};
    *ret_shared = shared;
    return 0;
}
