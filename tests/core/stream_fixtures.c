/* stream_fixtures.c: see stream_fixtures.h. */
#include "stream_fixtures.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

/* ---- witnesses ----------------------------------------------------------------- */

static void note_data(struct witness *witness, const struct fdmux_stream_event *event)
{
    CHECK(event->data != NULL && event->length > 0);
    witness->received += event->length;
    witness->hash = hash_bytes(witness->hash, event->data, event->length);
    if (event->length > witness->largest)
        witness->largest = event->length;
}

/* Fields that do not belong to the kind of event are 0. */
static void check_event(const struct fdmux_stream_event *event)
{
    bool has_error =
        event->kind == FDMUX_STREAM_CLOSED || event->kind == FDMUX_STREAM_REFUSED;

    CHECK(event->kind > 0 && event->kind < KINDS);
    CHECK(event->kind == FDMUX_STREAM_DATA || event->data == NULL);
    CHECK(event->kind == FDMUX_STREAM_DATA || event->length == 0);
    CHECK_EQ(event->listener != 0, event->kind == FDMUX_STREAM_ACCEPTED);
    CHECK(event->error == 0 || (has_error && event->error > 0));
    CHECK_EQ(event->reserved, 0);
}

int note_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
               void *userdata)
{
    struct witness *witness = userdata;

    CHECK(loop == witness->loop);
    check_event(event);
    if (witness->hash == 0)
        witness->hash = HASH_START;
    witness->counts[event->kind]++;
    witness->last_kind = event->kind;
    if (event->kind == FDMUX_STREAM_ACCEPTED)
        witness->token = event->stream;
    if (event->kind == FDMUX_STREAM_CLOSED || event->kind == FDMUX_STREAM_REFUSED)
        witness->error = event->error;
    if (event->kind == FDMUX_STREAM_DATA)
        note_data(witness, event);
    return witness->reaction == NULL ? 0 : witness->reaction(witness, event);
}

void note_destroyed(void *userdata)
{
    struct witness *witness = userdata;

    witness->destroyed++;
    CHECK(witness->counts[FDMUX_STREAM_CLOSED] > 0); /* comes before `destroyed` */
}

/* ---- streams ------------------------------------------------------------------- */

struct fdmux_stream_options options_for(struct fdmux_loop *loop,
                                        struct witness *witness)
{
    witness->loop = loop;
    return (struct fdmux_stream_options){
        .struct_size = sizeof(struct fdmux_stream_options),
        .fn = note_event,
        .userdata = witness,
        .destroyed = note_destroyed,
    };
}

uint64_t add_stream_with(struct fdmux_loop *loop, int fd,
                         const struct fdmux_stream_options *options)
{
    uint64_t token = 0;

    CHECK_EQ(fdmux_stream_add(loop, fd, options, &token), 0);
    return token;
}

uint64_t add_stream(struct fdmux_loop *loop, int fd, struct witness *witness)
{
    struct fdmux_stream_options options = options_for(loop, witness);

    return add_stream_with(loop, fd, &options);
}

uint64_t listen_on_loopback(struct fdmux_loop *loop,
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

    CHECK_EQ(fdmux_stream_listen_at(loop, &where, options, &token), 0);
    fd = fdmux_stream_fd(loop, token);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
    *ret_port = ntohs(bound.sin_port);
    return token;
}

uint64_t connect_to_loopback(struct fdmux_loop *loop, uint16_t port,
                             const struct fdmux_stream_options *options)
{
    struct fdmux_stream_address where = {
        .struct_size = sizeof where,
        .host = "127.0.0.1",
        .port = port,
    };
    uint64_t token = 0;

    CHECK_EQ(fdmux_stream_connect_to(loop, &where, options, &token), 0);
    return token;
}

/* ---- serving ------------------------------------------------------------------- */

static int dispatch(struct fdmux_loop *loop, int64_t timeout_ns)
{
    int r = fdmux_loop_dispatch(loop, timeout_ns, NULL, 0);

    verify_streams(loop);
    return r;
}

int serve(struct fdmux_loop *loop)
{
    return dispatch(loop, 0);
}

void serve_until(struct fdmux_loop *loop, const int *counter, int count)
{
    int64_t deadline_ns = fdmux_loop_now(loop) + 10000 * MS;

    while (*counter < count) {
        int r = dispatch(loop, MS); /* calls alone do not end a dispatch */

        CHECK(r >= 0 || r == -EINTR);
        CHECK(fdmux_loop_now(loop) < deadline_ns);
    }
}

static int seen(struct fdmux_loop *loop)
{
    struct fdmux_loop_stats stats = stats_of(loop);

    return (int)(stats.io_called_count + stats.timer_count);
}

void serve_all(struct fdmux_loop *loop)
{
    for (int i = 0; i < 200; i++) {
        int before = seen(loop);

        CHECK_EQ(serve(loop), 0);
        if (seen(loop) == before)
            break;
    }
    CHECK_EQ(serve(loop), 0); /* delivers what was still pending */
}

static void verify_stream(struct fdmux__hub *hub, const struct fdmux__stream *stream)
{
    const struct fdmux__stream_limits *limits = stream->limits;

    CHECK(fdmux__stream_queued(stream) <= limits->queue_max);
    CHECK(stream->queue_first + stream->queue_count <= stream->queue_capacity);
    CHECK((stream->state & FDMUX__STREAM_FAILED) == 0 ||
          (stream->state & FDMUX__STREAM_PENDING) != 0);
    CHECK_EQ((stream->state & FDMUX__STREAM_LAYERED) != 0, stream->layer != NULL);
    CHECK(stream->queue_count == 0 || (stream->state & FDMUX__STREAM_LISTENER) == 0);
    /* Only a stream on a borrowed descriptor gives it up before it is closed. */
    CHECK(stream->fd >= 0 || ((stream->state & FDMUX__STREAM_BORROWED) != 0 &&
                              (stream->state & FDMUX__STREAM_FAILED) != 0));
    CHECK(stream->peer_size <= sizeof stream->peer);
    CHECK(fdmux__hub_slot(stream) < fdmux__load(&hub->streams.slot_count));
}

void verify_streams(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub = loop->extensions[FDMUX__STREAMS].data;
    size_t queued_total = 0;
    uint32_t live = 0;

    VERIFY(loop);
    CHECK_EQ(loop->hold_count, 0);
    if (hub == NULL)
        return;
    for (uint32_t i = 0; i < fdmux__load(&hub->streams.slot_count); i++) {
        const struct fdmux__stream *stream = fdmux__hub_at(hub, i);

        if ((fdmux__load(&stream->base.slot.generation) & 1) == 0)
            continue;
        verify_stream(hub, stream);
        queued_total += fdmux__stream_queued(stream);
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

uint32_t queued(struct fdmux_loop *loop, uint64_t stream)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(fdmux_stream_stats(loop, stream, &stats), 0);
    return stats.queued;
}

int echo(struct witness *witness, const struct fdmux_stream_event *event)
{
    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    return fdmux_stream_write(witness->loop, event->stream, event->data, event->length);
}

void reset(int fd)
{
    struct linger linger = {.l_onoff = 1};

    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    CHECK_EQ(close(fd), 0);
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
