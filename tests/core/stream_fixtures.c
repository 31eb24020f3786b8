/* stream_fixtures.c: see stream_fixtures.h. */
#include "stream_fixtures.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

/* ---- witnesses ----------------------------------------------------------------- */

static void note_data(struct witness *witness, const unsigned char *data,
                      uint32_t length)
{
    witness->received += length;
    witness->hash = hash_bytes(witness->hash, data, length);
    if (length > witness->largest)
        witness->largest = length;
}

static int note(struct witness *witness, const struct fdmux_stream_record *record,
                const unsigned char *data)
{
    CHECK(record->kind > 0 && record->kind < KINDS);
    CHECK_EQ(record->slot, record->stream & 0x0fffffff);
    if (witness->hash == 0)
        witness->hash = HASH_START;
    witness->counts[record->kind]++;
    witness->last_kind = record->kind;
    if (record->kind == FDMUX_STREAM_ACCEPTED)
        witness->token = record->stream;
    if (record->kind == FDMUX_STREAM_CLOSED || record->kind == FDMUX_STREAM_REFUSED)
        witness->error = (int)record->last;
    if (record->kind == FDMUX_STREAM_DATA)
        note_data(witness, data, record->last - record->first);
    return witness->reaction == NULL ? 0 : witness->reaction(witness, record, data);
}

static int on_record(struct fdmux_loop *loop, const struct fdmux_stream_record *record,
                     const void *data, void *userdata)
{
    struct witness *witness = userdata;

    CHECK(loop == witness->desk->loop);
    return note(witness, record, data);
}

static void note_destroyed(void *userdata)
{
    struct witness *witness = userdata;

    witness->destroyed++;
    /* It comes last; but a collected record is read later. */
    CHECK(!witness->is_called || witness->counts[FDMUX_STREAM_CLOSED] > 0);
}

/* ---- the desk ------------------------------------------------------------------ */

void open_desk(struct desk *desk, bool is_collected, uint32_t records, uint32_t arena)
{
    *desk = (struct desk){.loop = check_open_loop(), .is_collected = is_collected};
    desk->batch.struct_size = sizeof desk->batch;
    desk->batch.records = calloc(records, sizeof *desk->batch.records);
    desk->batch.arena = malloc(arena);
    desk->batch.record_capacity = records;
    desk->batch.arena_size = arena;
    if (is_collected)
        CHECK_EQ(fdmux_stream_collect(desk->loop, &desk->batch), 0);
}

void close_desk(struct desk *desk)
{
    desk->loop = fdmux_loop_destroy(desk->loop);
    free(desk->batch.records);
    free(desk->batch.arena);
}

void on_both_desks(void (*scenario)(struct desk *desk))
{
    for (int i = 0; i < 2; i++) {
        struct desk desk;

        open_desk(&desk, i == 1, 64, 4 * ARENA_MIN);
        scenario(&desk);
    }
}

struct fdmux_stream_options options_for(struct desk *desk, struct witness *witness)
{
    witness->desk = desk;
    witness->is_called = !desk->is_collected;
    return (struct fdmux_stream_options){
        .struct_size = sizeof(struct fdmux_stream_options),
        .fn = desk->is_collected ? NULL : on_record,
        .userdata = witness,
        .destroyed = note_destroyed,
    };
}

static void put_witness(struct desk *desk, uint64_t token, struct witness *witness)
{
    uint32_t slot = (uint32_t)token & 0x0fffffff;

    CHECK(slot < sizeof desk->witnesses / sizeof *desk->witnesses);
    desk->witnesses[slot] = witness;
}

uint64_t add_stream_with(struct desk *desk, int fd,
                         const struct fdmux_stream_options *options)
{
    uint64_t token = 0;

    CHECK_EQ(fdmux_stream_add(desk->loop, fd, options, &token), 0);
    put_witness(desk, token, options->userdata);
    return token;
}

uint64_t add_stream(struct desk *desk, int fd, struct witness *witness)
{
    struct fdmux_stream_options options = options_for(desk, witness);

    return add_stream_with(desk, fd, &options);
}

uint64_t listen_on_loopback(struct desk *desk,
                            const struct fdmux_stream_options *options,
                            uint16_t *ret_port)
{
    struct fdmux_stream_address where = {
        .struct_size = sizeof where,
        .host = "127.0.0.1",
    };
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;
    uint64_t token = 0;
    int fd;

    CHECK_EQ(fdmux_stream_listen_at(desk->loop, &where, options, &token), 0);
    put_witness(desk, token, options->userdata);
    fd = fdmux_stream_fd(desk->loop, token);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
    *ret_port = ntohs(bound.sin_port);
    return token;
}

uint64_t connect_to_loopback(struct desk *desk, uint16_t port,
                             const struct fdmux_stream_options *options)
{
    struct fdmux_stream_address where = {
        .struct_size = sizeof where,
        .host = "127.0.0.1",
        .port = port,
    };
    uint64_t token = 0;

    CHECK_EQ(fdmux_stream_connect_to(desk->loop, &where, options, &token), 0);
    put_witness(desk, token, options->userdata);
    return token;
}

void read_batch(struct desk *desk)
{
    for (uint32_t i = 0; i < desk->batch.record_count; i++) {
        const struct fdmux_stream_record *record = &desk->batch.records[i];

        if (record->kind == FDMUX_STREAM_ACCEPTED)
            put_witness(desk, record->stream, desk->witnesses[record->first]);
        CHECK(desk->witnesses[record->slot] != NULL);
        (void)note(desk->witnesses[record->slot], record,
                   desk->batch.arena + record->first);
    }
    desk->batch.record_count = 0;
    desk->batch.arena_used = 0;
}

static int dispatch(struct desk *desk, int64_t timeout_ns)
{
    int r = fdmux_loop_dispatch(desk->loop, timeout_ns, NULL, 0);

    verify_desk(desk);
    read_batch(desk);
    return r;
}

int serve(struct desk *desk)
{
    return dispatch(desk, 0);
}

void serve_until(struct desk *desk, const int *counter, int count)
{
    int64_t deadline_ns = fdmux_loop_now(desk->loop) + 10000 * MS;

    while (*counter < count) {
        int r = dispatch(desk, MS); /* functions do not end a dispatch */

        CHECK(r >= 0 || r == -EINTR);
        CHECK(fdmux_loop_now(desk->loop) < deadline_ns);
    }
}

static int seen(const struct desk *desk)
{
    struct fdmux_loop_stats stats = stats_of(desk->loop);

    return (int)(stats.io_called_count + stats.timer_count);
}

void serve_all(struct desk *desk)
{
    for (int i = 0; i < 200; i++) {
        int before = seen(desk);

        CHECK_EQ(serve(desk), 0);
        if (seen(desk) == before)
            break;
    }
    CHECK_EQ(serve(desk), 0); /* what was pending after the last event */
}

static void verify_stream(struct fdmux__hub *hub, const struct fdmux__stream *stream)
{
    const struct fdmux__stream_limits *limits = stream->limits;

    CHECK(stream->queue_count <= limits->queue_max);
    CHECK(stream->queue_first + stream->queue_count <= stream->queue_capacity);
    CHECK((stream->state & FDMUX__STREAM_FAILED) == 0 ||
          (stream->state & FDMUX__STREAM_PENDING) != 0);
    CHECK(stream->queue_count == 0 || (stream->state & FDMUX__STREAM_LISTENER) == 0);
    CHECK(fdmux__hub_slot(stream) < fdmux__load(&hub->streams.slot_count));
}

void verify_desk(struct desk *desk)
{
    struct fdmux__hub *hub = desk->loop->extension_data;
    size_t queued_total = 0;
    uint32_t live = 0;

    VERIFY(desk->loop);
    CHECK(desk->batch.record_count <= desk->batch.record_capacity);
    CHECK(desk->batch.arena_used <= desk->batch.arena_size);
    if (hub == NULL)
        return;
    for (uint32_t i = 0; i < fdmux__load(&hub->streams.slot_count); i++) {
        const struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if ((fdmux__load(&stream->base.slot.generation) & 1) == 0)
            continue;
        verify_stream(hub, stream);
        queued_total += stream->queue_count;
        live++;
    }
    CHECK_EQ(live, hub->streams.live_count);
    CHECK_EQ(queued_total, hub->queued_total);
}

/* ---- sockets and bytes --------------------------------------------------------- */

int connect_client(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    CHECK_EQ(errno, ECONNREFUSED);
    CHECK_EQ(close(fd), 0);
    return -1;
}

void fill_pattern(unsigned char *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)check_random(&seed);
}

/* FNV-1a. */
uint64_t hash_bytes(uint64_t hash, const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    return hash;
}

void set_buffer(int fd, int option, int size)
{
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, option, &size, sizeof size), 0);
}

uint32_t queued(struct desk *desk, uint64_t stream)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(fdmux_stream_stats(desk->loop, stream, &stats), 0);
    return stats.queued;
}

int echo(struct witness *witness, const struct fdmux_stream_record *record,
         const unsigned char *data)
{
    if (record->kind != FDMUX_STREAM_DATA)
        return 0;
    return fdmux_stream_write(witness->desk->loop, record->stream, data,
                              record->last - record->first);
}

void expect_bytes(int fd, const char *bytes)
{
    char got[64];
    size_t length = strlen(bytes);

    CHECK(length < sizeof got);
    wait_until_readable(fd);
    CHECK_EQ(recv(fd, got, sizeof got, 0), (long)length);
    CHECK(memcmp(got, bytes, length) == 0);
}

void expect_end(int fd)
{
    char byte;

    wait_until_readable(fd);
    CHECK_EQ(recv(fd, &byte, 1, 0), 0);
}
