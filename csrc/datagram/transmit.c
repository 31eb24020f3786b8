/* transmit.c: sends a list of datagrams, up to 64 with one system call.
 *
 * The list may be the user's or a view of the queue. A datagram with segments is given
 * to the kernel in one piece if it divides such (GSO, udp(7)), or else piece by piece.
 */
#include "datagram.h"

#include <errno.h>

#define UDP_LENGTH_MAX                                                                 \
    65507 /* of one call: 65,535 less the headers of IPv4 and UDP                      \
           */
#define UDP_SEGMENTS_MAX 64  /* of one call, before Linux 6.9; 128 since */

struct sending {
    struct fdmux__datagrams *shared;
    struct fdmux__endpoint *endpoint;
    const struct fdmux_datagram *datagrams;
    uint32_t count;
    bool has_gso; /* for these datagrams */
    int earlier_error; /* what refused the first one, which is tried again; or 0 */
};

/* ---- pieces -------------------------------------------------------------------- */

/* The size of the next piece of a datagram. */
static uint32_t piece_size(const struct sending *sending,
                           const struct fdmux_datagram *datagram, uint32_t offset)
{
    uint32_t rest = datagram->length - offset;
    uint32_t segment = datagram->segment_size;
    uint32_t segments;
    uint32_t size;

    if (segment == 0 || rest <= segment)
        return rest;
    segments = UDP_LENGTH_MAX / segment;
    if (segments > UDP_SEGMENTS_MAX)
        segments = UDP_SEGMENTS_MAX;
    size = sending->has_gso && segments > 1 ? segments * segment : segment;
    return size < rest ? size : rest;
}

static void fill_one(const struct sending *sending, uint32_t index,
                     const struct fdmux_datagram *datagram, uint32_t offset)
{
    struct fdmux__outbox *outbox = &sending->shared->outbox;
    uint32_t size = piece_size(sending, datagram, offset);
    uint16_t segment = size > datagram->segment_size ? datagram->segment_size : 0;

    outbox->parts[index] =
        (struct fdmux__part){(void *)((uintptr_t)datagram->data + offset), size};
    fdmux__message_set(&outbox->messages[index], &outbox->parts[index],
                       datagram->address, datagram->address_size);
    if (segment != 0 || datagram->local != NULL)
        fdmux__control_write(&outbox->messages[index], outbox->control[index], datagram,
                             segment);
}

/* Advance past a piece. */
static void advance(const struct sending *sending, struct fdmux__progress *progress,
                    uint32_t size)
{
    progress->offset += size;
    if (progress->offset < sending->datagrams[progress->index].length)
        return;
    progress->index++;
    progress->offset = 0;
}

/* Returns how many messages there are. */
static uint32_t fill(const struct sending *sending, struct fdmux__progress progress)
{
    uint32_t used = 0;

    while (used < FDMUX__BATCH_MAX && progress.index < sending->count) {
        const struct fdmux_datagram *datagram = &sending->datagrams[progress.index];

        fill_one(sending, used, datagram, progress.offset);
        advance(sending, &progress, (uint32_t)sending->shared->outbox.parts[used].size);
        used++;
    }
    return used;
}

/* ---- system calls -------------------------------------------------------------- */

static int send_singly(const struct sending *sending, uint32_t count)
{
    const struct fdmux__message *messages = sending->shared->outbox.messages;
    uint32_t sent = 0;
    int r = 0;

    while (sent < count && r >= 0) {
        r = fdmux__sys_send_one(sending->endpoint->fd, &messages[sent]);
        sent += r >= 0;
    }
    return sent > 0 ? (int)sent : r;
}

static int send_messages(const struct sending *sending, uint32_t count)
{
    struct fdmux__datagrams *shared = sending->shared;
    int r;

    if (count == 1 || !shared->has_send_many)
        return send_singly(sending, count);
    r = fdmux__sys_send_many(sending->endpoint->fd, shared->outbox.messages, count);
    if (r != -ENOSYS)
        return r;
    shared->has_send_many = false;
    return send_singly(sending, count);
}

static void count_sent(const struct sending *sending, struct fdmux__progress *progress,
                       uint32_t count)
{
    struct fdmux_datagram_stats *stats = &sending->endpoint->stats;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = (uint32_t)sending->shared->outbox.parts[i].size;
        uint32_t segment = sending->datagrams[progress->index].segment_size;

        stats->sent += segment == 0 || size == 0 ? 1 : (size + segment - 1) / segment;
        stats->sent_bytes += size;
        advance(sending, progress, size);
    }
}

/* ---- errors -------------------------------------------------------------------- */

/* Did the kernel refuse to divide the first message? udp(7) has EINVAL; EIO where the
 * device cannot compute checksums; EMSGSIZE for segments longer than the path allows.
 */
static bool refuses_segments(struct sending *sending, int error)
{
    const struct fdmux__outbox *outbox = &sending->shared->outbox;

    if (!sending->has_gso || !fdmux__message_has_aside(&outbox->messages[0]) ||
        (error != EINVAL && error != EIO && error != EMSGSIZE && error != EOPNOTSUPP))
        return false;
    sending->has_gso = false;
    if (error == EIO || error == EOPNOTSUPP)
        sending->shared->has_gso = false;
    return true;
}

static void skip_failed(struct sending *sending, struct fdmux__progress *progress,
                        int error)
{
    struct fdmux_datagram_stats *stats = &sending->endpoint->stats;

    if (error == ENOBUFS || error == ENOMEM)
        stats->dropped++;
    else
        stats->failed++;
    if (progress->failed_count++ == 0) {
        progress->failed_index = progress->index;
        progress->error = -error;
    }
    progress->index++;
    progress->offset = 0;
    sending->earlier_error = 0;
}

/* The first message was refused. An error that was caused by an earlier datagram does
 * not come a second time, so try again before this one counts as failed. */
static void handle_error(struct sending *sending, struct fdmux__progress *progress,
                         int error)
{
    if (error == EINTR || refuses_segments(sending, error))
        return;
    if (sending->earlier_error != 0 || !fdmux__is_peer_error(error))
        skip_failed(sending, progress, error);
    else
        sending->earlier_error = error;
}

/* The second try was not refused: the error was that of an earlier datagram. With
 * ERRORS the error queue tells it. */
static void tell_earlier(struct fdmux_loop *loop, struct sending *sending)
{
    if (sending->earlier_error != 0 &&
        (sending->endpoint->flags & FDMUX_DATAGRAM_ERRORS) == 0) {
        sending->endpoint->stats.errors++;
        fdmux__endpoint_note_error(loop, sending->endpoint, sending->earlier_error,
                                   NULL);
    }
    sending->earlier_error = 0;
}

bool fdmux__endpoint_transmit(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                              const struct fdmux_datagram *datagrams, uint32_t count,
                              struct fdmux__progress *progress)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);
    struct sending sending = {
        .shared = shared,
        .endpoint = endpoint,
        .datagrams = datagrams,
        .count = count,
        /* A Unix socket ignores what it is told of segments, and sends one datagram. */
        .has_gso = shared->has_gso && (endpoint->state & FDMUX__ENDPOINT_UNIX) == 0,
    };

    while (progress->index < count) {
        uint32_t filled = fill(&sending, *progress);
        int r = send_messages(&sending, sending.earlier_error != 0 ? 1 : filled);

        if (r < 0 && r != -EAGAIN) {
            handle_error(&sending, progress, -r);
            continue;
        }
        tell_earlier(loop, &sending);
        if (r == -EAGAIN)
            return false;
        count_sent(&sending, progress, (uint32_t)r);
    }
    return true;
}
