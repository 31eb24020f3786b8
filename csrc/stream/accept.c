/* accept.c: accepts connections and makes streams of them.
 *
 * When accept(2) fails because of one connection, the listener goes on with the next.
 * When descriptors or memory run out, it backs off, since the socket stays readable and
 * trying again at once would spin. Any other error ends the listener. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "../platform/sys.h"

#define ACCEPT_MAX 16
/* In ticks of 250 ms. When a stream closes, the listener retries at once. */
#define BACKOFF_FIRST 1
#define BACKOFF_MAX 4

static bool is_shortage(int r)
{
    return r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM;
}

/* Linux accept(2): already-pending network errors come out of accept; "treat them like
 * EAGAIN by retrying". */
static bool is_connection_error(int r)
{
    switch (-r) {
    case ECONNABORTED:
    case ECONNRESET:
    case EINTR:
    case EPERM:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
#ifdef ENONET
    case ENONET:
#endif
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

void fdmux__listener_back_off(struct fdmux_loop *loop, struct fdmux__stream *listener)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t backoff = listener->backoff_ticks;

    if (backoff == 0) {
        hub->backed_off_count++;
        fdmux__hub_count_timed(loop, 1);
    }
    listener->backoff_ticks = (uint8_t)(backoff == 0            ? BACKOFF_FIRST
                                        : backoff < BACKOFF_MAX ? backoff * 2
                                                                : backoff);
    listener->tick = hub->tick;
    fdmux__stream_watch(loop, listener);
}

static void end_back_off(struct fdmux_loop *loop, struct fdmux__stream *listener)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);

    if (listener->backoff_ticks == 0)
        return;
    listener->backoff_ticks = 0;
    hub->backed_off_count--;
    fdmux__hub_count_timed(loop, -1);
    fdmux__stream_watch(loop, listener);
}

/* O(streams), and nothing while no listener has backed off. */
void fdmux__listeners_retry(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub = fdmux__hub_of(loop);
    uint32_t count = fdmux__load(&hub->streams.slot_count);

    for (uint32_t i = 0; i < count && hub->backed_off_count > 0; i++) {
        struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if (fdmux__slot_is_live(&stream->base.slot) &&
            (stream->state & FDMUX__STREAM_LISTENER) != 0)
            end_back_off(loop, stream);
    }
}

/* What accept(2) returned: the socket, and the address of the peer. */
struct connection {
    fdmux_fd fd;
    unsigned peer_size;
    unsigned char peer[FDMUX__PEER_MAX];
};

static int admit(struct fdmux_loop *loop, struct fdmux__stream *listener,
                 const struct connection *accepted)
{
    uint32_t limit = listener->limits->connection_max;
    const struct fdmux__hub *hub = fdmux__hub_of(loop);
    struct fdmux__stream *stream;

    if ((limit > 0 && listener->connections >= limit) ||
        fdmux__stream_create(loop, accepted->fd, 0, listener, NULL, &stream) < 0) {
        listener->sent++;
        fdmux__count(&loop->counters.refused, 1);
        fdmux__count(&listener->limits->totals.refused, 1);
        (void)fdmux__sys_close(accepted->fd); /* close(2): released in any case */
        return 0;
    }
    fdmux__sys_no_delay(accepted->fd);
    memcpy(stream->peer, accepted->peer, accepted->peer_size);
    stream->peer_size = (uint8_t)accepted->peer_size;
    listener->received++;
    listener->connections++;
    fdmux__count(&listener->limits->totals.accepted, 1);
    return fdmux__hub_deliver(
        loop, stream,
        (struct fdmux_stream_event){
            .kind = FDMUX_STREAM_ACCEPTED,
            .listener = fdmux__slots_token(&hub->streams, fdmux__hub_slot(listener))});
}

static int fail(struct fdmux_loop *loop, struct fdmux__stream *listener, int r)
{
    bool is_first = listener->backoff_ticks == 0;

    if (!is_shortage(r)) {
        fdmux__stream_fail(loop, listener, -r);
        return 0;
    }
    fdmux__listener_back_off(loop, listener);
    if (!is_first)
        return 0; /* REFUSED was delivered when this shortage began */
    return fdmux__hub_deliver(
        loop, listener,
        (struct fdmux_stream_event){.kind = FDMUX_STREAM_REFUSED, .error = -r});
}

int fdmux__stream_accept(struct fdmux_loop *loop, struct fdmux__stream *listener)
{
    int r = 0;

    for (int i = 0; i < ACCEPT_MAX && r >= 0; i++) {
        struct connection accepted = {.peer_size = sizeof accepted.peer};

        if (!fdmux__stream_is_reading(loop, listener))
            break; /* level-triggered: the next wait reports it again */
        r = fdmux__sys_accept(listener->fd, &accepted.fd, accepted.peer,
                              &accepted.peer_size);
        if (r == -EAGAIN) {
            /* accept(2) reserves a descriptor before it looks for a connection. */
            end_back_off(loop, listener);
            return 0;
        }
        if (r < 0 && !is_connection_error(r))
            return fail(loop, listener, r);
        if (r < 0) {
            r = 0;
            continue;
        }
        end_back_off(loop, listener);
        r = fdmux__fn_result(loop, admit(loop, listener, &accepted));
    }
    return r;
}
