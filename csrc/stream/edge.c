/* edge.c: decides which streams are edge-triggered.
 *
 * epoll checks a level-triggered socket twice for each message: when it reports the
 * socket, and at the next wait, where it finds the socket empty. That is about 5 % of
 * the cost of a message of 1 KiB. A recv(2) that returns fewer bytes than fit has
 * emptied a TCP socket (epoll(7)), so a stream with several such receives becomes
 * edge-triggered. A full receive, the peer's end, an error or urgent data makes it
 * level-triggered again, since more may follow without another edge. */
#include "stream.h"

#include "../platform/sys.h"

/* Becoming edge-triggered and level-triggered again costs a system call each. */
#define SHORT_RECEIVES_MIN 8

void fdmux__stream_leave_edge(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    stream->short_receives = 0;
    if ((stream->state & FDMUX__STREAM_EDGE) == 0)
        return;
    stream->state &= ~(uint32_t)FDMUX__STREAM_EDGE;
    fdmux__stream_watch(loop, stream); /* the kernel reports anew what is there now */
}

static void enter(struct fdmux_loop *loop, struct fdmux__stream *stream)
{
    const struct fdmux__hub *hub = fdmux__hub_of(loop);

    /* A short receive from a Unix socket proves nothing: it also stops where
     * descriptors were passed. */
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
