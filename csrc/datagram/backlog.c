/* backlog.c: the queue of datagrams that the kernel has not taken yet.
 *
 * A record is its header, the address, the local address and the bytes, and begins at a
 * multiple of 8. The socket is writable again when the kernel has room. Only of a Unix
 * socket that is not connected does poll(2) always say so, because the room is that of
 * the receiver: its queue is tried again after a while. */
#include "datagram.h"

#include <errno.h>
#include <string.h>

#define QUEUE_MIN 4096
#define RETRY_NS (2 * FDMUX__NS_PER_MS)

struct record {
    uint32_t size; /* of the whole record */
    uint32_t length;
    uint16_t address_size; /* 0: no address */
    uint16_t local_size;
    uint16_t segment_size;
    uint16_t reserved;
};

static uint32_t aligned(uint32_t size)
{
    return (size + 7) & ~UINT32_C(7);
}

static unsigned char *address_of(struct record *record)
{
    return (unsigned char *)(record + 1);
}

static unsigned char *local_of(struct record *record)
{
    return address_of(record) + aligned(record->address_size);
}

static unsigned char *data_of(struct record *record)
{
    return local_of(record) + aligned(record->local_size);
}

static struct record *record_at(const struct fdmux__endpoint *endpoint, uint32_t place)
{
    return (struct record *)(void *)(endpoint->queue + place);
}

/* ---- adding -------------------------------------------------------------------- */

/* Make room at the end of the queue: move its records to the front, or grow it. */
static int reserve(struct fdmux__endpoint *endpoint, uint32_t size)
{
    uint32_t used = endpoint->queue_end - endpoint->queue_first;
    uint32_t capacity =
        endpoint->queue_capacity < QUEUE_MIN ? QUEUE_MIN : endpoint->queue_capacity;
    unsigned char *queue;

    if (endpoint->queue_end + size <= endpoint->queue_capacity)
        return 0;
    if (endpoint->queue_first > 0) {
        memmove(endpoint->queue, endpoint->queue + endpoint->queue_first, used);
        endpoint->queue_first = 0;
        endpoint->queue_end = used;
    }
    while (capacity < used + size)
        capacity *= 2;
    if (capacity == endpoint->queue_capacity)
        return 0;
    queue = fdmux__sys_realloc(endpoint->queue, capacity);
    if (queue == NULL)
        return -ENOMEM;
    endpoint->queue = queue;
    endpoint->queue_capacity = capacity;
    return 0;
}

static uint32_t cost_of(uint32_t length)
{
    return length + FDMUX__DATAGRAM_COST;
}

static void wait_for_room(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    endpoint->state |= FDMUX__ENDPOINT_SENDING;
    if ((endpoint->state & FDMUX__ENDPOINT_HAS_TIMER) != 0) {
        endpoint->state |= FDMUX__ENDPOINT_RETRYING;
        (void)fdmux_timer_arm(loop, endpoint->timer, fdmux_loop_now(loop) + RETRY_NS,
                              0); /* needs no memory */
    }
    fdmux__endpoint_watch(loop, endpoint);
}

static int drop(struct fdmux__endpoint *endpoint, int r)
{
    endpoint->stats.dropped++;
    endpoint->state |= FDMUX__ENDPOINT_WRITABLE_WANTED;
    return r;
}

int fdmux__endpoint_queue(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                          const struct fdmux_datagram *datagram, uint32_t offset)
{
    uint32_t length = datagram->length - offset;
    struct record header = {
        .length = length,
        .address_size = datagram->address == NULL ? 0 : datagram->address_size,
        .local_size = datagram->local == NULL ? 0 : datagram->local_size,
        .segment_size = datagram->segment_size,
    };
    struct record *record;

    if (endpoint->queued >= endpoint->queue_max ||
        length > endpoint->queue_max - endpoint->queued ||
        cost_of(length) > endpoint->queue_max - endpoint->queued)
        return drop(endpoint, -ENOBUFS);
    header.size = (uint32_t)sizeof header + aligned(header.address_size) +
                  aligned(header.local_size) + aligned(length);
    if (reserve(endpoint, header.size) < 0)
        return drop(endpoint, -ENOMEM);
    record = record_at(endpoint, endpoint->queue_end);
    *record = header;
    if (header.address_size > 0)
        memcpy(address_of(record), datagram->address, header.address_size);
    if (header.local_size > 0)
        memcpy(local_of(record), datagram->local, header.local_size);
    if (length > 0)
        memcpy(data_of(record), (const unsigned char *)datagram->data + offset, length);
    endpoint->queue_end += header.size;
    endpoint->queued += cost_of(length);
    endpoint->queued_count++;
    wait_for_room(loop, endpoint);
    return 0;
}

/* ---- sending ------------------------------------------------------------------- */

/* Describe the first records. Returns how many. */
static uint32_t view(const struct fdmux__endpoint *endpoint,
                     struct fdmux_datagram *datagrams)
{
    uint32_t place = endpoint->queue_first;
    uint32_t count = 0;

    for (; count < FDMUX__BATCH_MAX && place < endpoint->queue_end; count++) {
        struct record *record = record_at(endpoint, place);

        datagrams[count] = (struct fdmux_datagram){
            .data = data_of(record),
            .length = record->length,
            .address = record->address_size == 0 ? NULL : address_of(record),
            .address_size = record->address_size,
            .local = record->local_size == 0 ? NULL : local_of(record),
            .local_size = record->local_size,
            .segment_size = record->segment_size,
        };
        place += record->size;
    }
    return count;
}

static void remove_first(struct fdmux__endpoint *endpoint, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct record *record = record_at(endpoint, endpoint->queue_first);

        endpoint->queued -= cost_of(record->length);
        endpoint->queue_first += record->size;
    }
    endpoint->queued_count -= count;
    if (endpoint->queued_count == 0)
        endpoint->queue_first = endpoint->queue_end = 0;
}

/* Send from the queue until it is empty, or the kernel takes no more. */
static void send_queue(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    struct fdmux_datagram *datagrams = fdmux__datagrams_of(loop)->outbox.queued;
    bool goes_on = true;

    while (goes_on && endpoint->queued_count > 0) {
        struct fdmux__progress progress = {.offset = endpoint->head_offset};
        uint32_t count = view(endpoint, datagrams);

        goes_on = fdmux__endpoint_transmit(loop, endpoint, datagrams, count, &progress);
        if (progress.failed_count > 0)
            fdmux__endpoint_note_error(loop, endpoint, -progress.error,
                                       &datagrams[progress.failed_index]);
        endpoint->head_offset = progress.offset;
        remove_first(endpoint, progress.index);
    }
    if (!goes_on)
        wait_for_room(loop, endpoint);
}

static void free_queue(struct fdmux__endpoint *endpoint)
{
    fdmux__sys_free(endpoint->queue);
    endpoint->queue = NULL;
    endpoint->queue_first = endpoint->queue_end = endpoint->queue_capacity = 0;
    endpoint->queued = endpoint->queued_count = endpoint->head_offset = 0;
}

void fdmux__endpoint_drop_queue(struct fdmux__endpoint *endpoint)
{
    endpoint->stats.dropped += endpoint->queued_count;
    free_queue(endpoint);
}

int fdmux__endpoint_flush(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint)
{
    int r = 0;

    endpoint->state &= ~(uint32_t)(FDMUX__ENDPOINT_SENDING | FDMUX__ENDPOINT_RETRYING);
    send_queue(loop, endpoint);
    if (endpoint->queued_count == 0)
        free_queue(endpoint);
    if ((endpoint->state & FDMUX__ENDPOINT_WRITABLE_WANTED) != 0 &&
        endpoint->queued <= endpoint->queue_low &&
        (endpoint->state & FDMUX__ENDPOINT_CLOSING) == 0) {
        endpoint->state &= ~(uint32_t)FDMUX__ENDPOINT_WRITABLE_WANTED;
        r = fdmux__endpoint_deliver(
            loop, endpoint,
            (struct fdmux_datagram_event){.kind = FDMUX_DATAGRAM_WRITABLE});
    }
    if ((endpoint->state & FDMUX__ENDPOINT_CLOSING) != 0 && endpoint->queued_count == 0)
        fdmux__endpoint_fail(loop, endpoint, 0);
    else
        fdmux__endpoint_watch(loop, endpoint);
    return r;
}

int fdmux__endpoint_retry(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct fdmux__endpoint *endpoint = userdata;

    (void)timer;
    return (endpoint->state & FDMUX__ENDPOINT_FAILED) != 0
               ? 0
               : fdmux__endpoint_flush(loop, endpoint);
}
