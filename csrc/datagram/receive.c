/* receive.c: receives a batch of datagrams and calls the function of the endpoint.
 *
 * An endpoint receives once in a batch, so that a busy one does not delay the others.
 * Where the kernel has no recvmmsg(2), it receives one by one. */
#include "datagram.h"

#include <errno.h>

/* Each datagram has a part of the memory. The parts do not begin at multiples of a
 * power of two, which would all share a few lines of the processor's caches. */
#define PART_GAP 1088
#define MEMORY_SIZE (FDMUX__BATCH_MAX * ((size_t)65536 + PART_GAP))

size_t fdmux__inbox_memory_size(void)
{
    return MEMORY_SIZE;
}

/* How many datagrams of `size_max` bytes fit into the memory. */
static uint32_t capacity_of(uint32_t size_max)
{
    size_t capacity = MEMORY_SIZE / ((size_t)size_max + PART_GAP);

    return capacity < FDMUX__BATCH_MAX ? (uint32_t)capacity : FDMUX__BATCH_MAX;
}

/* Reset the first messages, which a receive has changed. */
static void reset(struct fdmux__inbox *inbox, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        fdmux__message_reset(&inbox->messages[i], sizeof inbox->addresses[i],
                             inbox->control[i], sizeof inbox->control[i]);
    }
}

void fdmux__inbox_prepare(struct fdmux__inbox *inbox, uint32_t size_max)
{
    uint32_t capacity = capacity_of(size_max);

    if (inbox->size_max == size_max) {
        reset(inbox, inbox->used);
        return;
    }
    inbox->size_max = size_max;
    for (uint32_t i = 0; i < capacity; i++) {
        inbox->parts[i].base = inbox->memory + i * ((size_t)size_max + PART_GAP);
        inbox->parts[i].size = size_max;
        fdmux__message_set(&inbox->messages[i], &inbox->parts[i], &inbox->addresses[i],
                           sizeof inbox->addresses[i]);
    }
    reset(inbox, capacity);
}

/* ---- receiving ----------------------------------------------------------------- */

static int receive_singly(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                          struct fdmux__message *messages, uint32_t count)
{
    uint32_t received = 0;
    int r = 0;

    while (received < count && r >= 0) {
        r = fdmux__sys_receive_one(endpoint->fd, &messages[received]);
        received += r >= 0;
    }
    if (received == 0)
        return r;
    /* recvmmsg(2) would keep the error for the next call. */
    if (r < 0 && fdmux__is_peer_error(-r))
        fdmux__endpoint_note_error(loop, endpoint, -r, NULL);
    return (int)received;
}

static int receive_messages(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                            uint32_t count)
{
    struct fdmux__datagrams *shared = fdmux__datagrams_of(loop);
    struct fdmux__message *messages = shared->inbox.messages;
    int r = -ENOSYS;

    if (shared->has_receive_many)
        r = fdmux__sys_receive_many(endpoint->fd, messages, count);
    if (shared->has_receive_many && (r == -ENOSYS || r == -EPERM))
        shared->has_receive_many = false;
    if (!shared->has_receive_many)
        r = receive_singly(loop, endpoint, messages, count);
    shared->inbox.used = r < 0 ? 1 : (uint32_t)r;
    return r;
}

/* ---- datagrams ----------------------------------------------------------------- */

/* Describe the datagrams of one message, after `count` others. Returns how many there
 * are then. With GRO the kernel may have joined several to one message. */
static uint32_t describe(struct fdmux__inbox *inbox, uint32_t index, uint32_t count,
                         bool is_joined)
{
    struct fdmux__message *message = &inbox->messages[index];
    struct fdmux_datagram *first = &inbox->datagrams[count];
    const unsigned char *data = inbox->parts[index].base;
    uint32_t rest = fdmux__message_length(message);
    uint32_t size;

    *first = (struct fdmux_datagram){.data = data, .length = rest};
    if (fdmux__message_address_size(message) > 0) {
        first->address = &inbox->addresses[index];
        first->address_size = (uint16_t)fdmux__message_address_size(message);
    }
    if (fdmux__message_is_truncated(message))
        first->flags |= FDMUX_DATAGRAM_TRUNCATED;
    size = fdmux__message_has_aside(message)
               ? fdmux__control_read(message, &inbox->locals[index], first)
               : 0;
    if (!is_joined || size == 0 || size >= rest)
        return count + 1;
    for (uint32_t i = 0; rest > 0 && i < FDMUX__SEGMENTS_MAX; i++) {
        struct fdmux_datagram *datagram = &inbox->datagrams[count++];

        *datagram = *first;
        datagram->data = data;
        datagram->length = rest < size ? rest : size;
        data += datagram->length;
        rest -= datagram->length;
    }
    return count;
}

static void count_received(struct fdmux__endpoint *endpoint,
                           const struct fdmux_datagram *datagrams, uint32_t count)
{
    struct fdmux_datagram_stats *stats = &endpoint->stats;

    stats->received += count;
    for (uint32_t i = 0; i < count; i++) {
        stats->received_bytes += datagrams[i].length;
        stats->truncated += datagrams[i].flags & FDMUX_DATAGRAM_TRUNCATED;
    }
}

static int deliver_received(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                            uint32_t message_count)
{
    struct fdmux__inbox *inbox = &fdmux__datagrams_of(loop)->inbox;
    uint32_t count = 0;

    for (uint32_t i = 0; i < message_count; i++)
        count = describe(inbox, i, count, (endpoint->state & FDMUX__ENDPOINT_GRO) != 0);
    count_received(endpoint, inbox->datagrams, count);
    return fdmux__endpoint_deliver(
        loop, endpoint,
        (struct fdmux_datagram_event){.kind = FDMUX_DATAGRAM_RECEIVED,
                                      .datagrams = inbox->datagrams,
                                      .count = count});
}

static int fail(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint, int error)
{
    if (error == EAGAIN || error == EINTR || error == ENOMEM || error == ENOBUFS)
        return 0; /* the next wait reports it again */
    if (!fdmux__is_peer_error(error)) {
        fdmux__endpoint_fail(loop, endpoint, error);
        return 0;
    }
    /* With ERRORS the error queue tells it too, and whose it is. */
    if ((endpoint->flags & FDMUX_DATAGRAM_ERRORS) != 0)
        return 0;
    endpoint->stats.errors++;
    return fdmux__endpoint_deliver(
        loop, endpoint,
        (struct fdmux_datagram_event){.kind = FDMUX_DATAGRAM_ERROR, .error = error});
}

int fdmux__endpoint_receive(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    struct fdmux__inbox *inbox = &fdmux__datagrams_of(loop)->inbox;
    uint32_t count = capacity_of(endpoint->size_max);
    int r;

    if ((endpoint->state & FDMUX__ENDPOINT_GRO) != 0 && count > FDMUX__GRO_BATCH_MAX)
        count = FDMUX__GRO_BATCH_MAX;
    fdmux__inbox_prepare(inbox, endpoint->size_max);
    r = receive_messages(loop, endpoint, count);
    if (r < 0)
        return fail(loop, endpoint, -r);
    return deliver_received(loop, endpoint, (uint32_t)r);
}
