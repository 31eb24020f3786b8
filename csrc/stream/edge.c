/* edge.c: edge-triggered streams.
 *
 * Level-triggered, epoll looks at every socket twice a message: when it reports it, and
 * again at the next wait to see that it is empty. That costs a message of 1 KiB about a
 * twentieth of all its time. A recv(2) that returned less than it was offered has
 * emptied a TCP socket, as epoll(7) says; so a stream whose receives are such is
 * watched for edges. Whatever else may lie behind the bytes (the peer's end, an error,
 * urgent data, more than fitted) is asked for too, and makes the stream level-triggered
 * again.
 */
#include "stream.h"

#include "../platform/sys.h"

/* Entering and leaving cost a system call each. */
#define SHORT_RECEIVES_MIN 8

void fdmux__stream_leave_edge(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    stream->short_receives = 0;
    if ((stream->state & FDMUX__STREAM_EDGE) == 0)
        return;
    stream->state &= ~(uint32_t)FDMUX__STREAM_EDGE;
    fdmux__stream_watch(loop, stream); /* reports again what is there now */
}

static void enter(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__hub *hub = fdmux__hub_of(loop);

    /* A receive from a Unix socket also stops where descriptors were passed. */
    if (!hub->has_edges || !fdmux__sys_is_tcp(stream->fd))
        return;
    stream->state |= FDMUX__STREAM_EDGE;
    fdmux__stream_watch(loop, stream);
}

void fdmux__stream_count_receive(struct fdmux_loop *loop, struct fdmux__stream *stream,
                                 int count, size_t offered)
{
    if (count <= 0 || !fdmux__sys_was_short(count, offered))
        fdmux__stream_leave_edge(loop, stream);
    else if ((stream->state & FDMUX__STREAM_EDGE) == 0 &&
             ++stream->short_receives == SHORT_RECEIVES_MIN)
        enter(loop, stream);
}
