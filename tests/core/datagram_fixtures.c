/* datagram_fixtures.c: see datagram_fixtures.h. */
#include "datagram_fixtures.h"

#include <arpa/inet.h>
#include <unistd.h>

/* ---- listeners ----------------------------------------------------------------- */

static void note_one(struct listener *listener, const struct fdmux_datagram *datagram)
{
    struct heard *heard = &listener->heard[listener->heard_count++ % HEARD_MAX];
    size_t kept = datagram->length < TEXT_MAX - 1 ? datagram->length : TEXT_MAX - 1;

    CHECK_EQ(datagram->address == NULL, datagram->address_size == 0);
    CHECK_EQ(datagram->local == NULL, datagram->local_size == 0);
    CHECK_EQ(datagram->segment_size, 0);
    *heard = (struct heard){
        .length = datagram->length,
        .flags = datagram->flags,
        .ecn = datagram->ecn,
        .address_size = datagram->address_size,
        .local_size = datagram->local_size,
    };
    if (kept > 0)
        memcpy(heard->text, datagram->data, kept);
    if (datagram->address != NULL)
        memcpy(&heard->address, datagram->address, datagram->address_size);
    if (datagram->local != NULL)
        memcpy(&heard->local, datagram->local, datagram->local_size);
}

int note_datagrams(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                   void *userdata)
{
    struct listener *listener = userdata;

    CHECK(loop == listener->loop);
    CHECK(event->kind >= FDMUX_DATAGRAM_RECEIVED &&
          event->kind <= FDMUX_DATAGRAM_CLOSED);
    CHECK_EQ(event->count > 0, event->kind == FDMUX_DATAGRAM_RECEIVED);
    CHECK_EQ(event->datagrams != NULL, event->kind == FDMUX_DATAGRAM_RECEIVED);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED] > listener->destroyed, 0);
    listener->counts[event->kind]++;
    for (uint32_t i = 0; i < event->count; i++)
        note_one(listener, &event->datagrams[i]);
    if ((int)event->count > listener->largest_batch)
        listener->largest_batch = (int)event->count;
    if (event->kind == FDMUX_DATAGRAM_ERROR || event->kind == FDMUX_DATAGRAM_CLOSED)
        listener->error = event->error;
    if (event->kind == FDMUX_DATAGRAM_ERROR) {
        listener->error_address_size = event->address_size;
        if (event->address != NULL)
            memcpy(&listener->error_address, event->address, event->address_size);
    }
    return listener->reaction == NULL ? 0 : listener->reaction(listener, event);
}

void note_gone(void *userdata)
{
    struct listener *listener = userdata;

    listener->destroyed++;
    CHECK(listener->counts[FDMUX_DATAGRAM_CLOSED] >= listener->destroyed);
}

struct listener *open_listener(struct fdmux_loop *loop)
{
    struct listener *listener = calloc(1, sizeof *listener);

    CHECK(listener != NULL);
    listener->loop = loop;
    return listener;
}

struct fdmux_datagram_options datagram_options(struct listener *listener)
{
    return (struct fdmux_datagram_options){
        .struct_size = sizeof(struct fdmux_datagram_options),
        .fn = note_datagrams,
        .userdata = listener,
        .destroyed = note_gone,
    };
}

/* ---- endpoints ----------------------------------------------------------------- */

static uint16_t port_of(int fd)
{
    union fdmux__sockaddr bound;
    socklen_t size = sizeof bound;

    CHECK_EQ(getsockname(fd, &bound.generic, &size), 0);
    return ntohs(bound.inet.sin_port); /* at the same place for IPv6 */
}

uint64_t bind_with(struct listener *listener, const char *host,
                   const struct fdmux_datagram_options *options, uint16_t *ret_port)
{
    struct fdmux_datagram_address where = {.struct_size = sizeof where, .host = host};
    uint64_t endpoint = 0;

    CHECK_EQ(fdmux_datagram_bind(listener->loop, &where, options, &endpoint), 0);
    *ret_port = port_of(fdmux_datagram_fd(listener->loop, endpoint));
    return endpoint;
}

uint64_t bind_loopback(struct listener *listener, uint32_t flags, uint16_t *ret_port)
{
    struct fdmux_datagram_options options = datagram_options(listener);

    options.flags = flags;
    return bind_with(listener, "127.0.0.1", &options, ret_port);
}

uint64_t connect_loopback(struct listener *listener, uint32_t flags, uint16_t port)
{
    struct fdmux_datagram_options options = datagram_options(listener);
    struct fdmux_datagram_address where = {
        .struct_size = sizeof where,
        .host = "127.0.0.1",
        .port = port,
    };
    uint64_t endpoint = 0;

    options.flags = flags;
    CHECK_EQ(fdmux_datagram_connect(listener->loop, &where, NULL, &options, &endpoint),
             0);
    return endpoint;
}

int echo_batch(struct listener *listener, const struct fdmux_datagram_event *event)
{
    if (event->kind == FDMUX_DATAGRAM_RECEIVED)
        CHECK_EQ(fdmux_datagram_send_many(listener->loop, event->endpoint,
                                          event->datagrams, event->count),
                 (int)event->count);
    return 0;
}

struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

struct fdmux_datagram datagram_to(const struct sockaddr_in *where, const void *data,
                                  size_t length)
{
    return (struct fdmux_datagram){
        .data = data,
        .length = (uint32_t)length,
        .address = where,
        .address_size = where == NULL ? 0 : sizeof *where,
    };
}

int send_text(struct fdmux_loop *loop, uint64_t endpoint, uint16_t port,
              const char *text)
{
    struct sockaddr_in where = loopback(port);
    struct fdmux_datagram datagram =
        datagram_to(port == 0 ? NULL : &where, text, strlen(text));

    return fdmux_datagram_send(loop, endpoint, &datagram);
}

struct fdmux_datagram_stats datagram_stats(struct fdmux_loop *loop, uint64_t endpoint)
{
    struct fdmux_datagram_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(fdmux_datagram_stats(loop, endpoint, &stats), 0);
    return stats;
}

/* ---- plain sockets ------------------------------------------------------------- */

int open_talker(uint16_t port)
{
    struct sockaddr_in where = loopback(port);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    CHECK(fd >= 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&where, sizeof where), 0);
    return fd;
}

int open_receiver(uint16_t *ret_port)
{
    struct sockaddr_in where = loopback(0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    CHECK(fd >= 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&where, sizeof where), 0);
    *ret_port = port_of(fd);
    return fd;
}

void say(int fd, const char *text)
{
    CHECK_EQ(send(fd, text, strlen(text), 0), (long)strlen(text));
}

void expect_text(int fd, const char *text)
{
    char got[256];
    long length;

    wait_until_readable(fd);
    length = recv(fd, got, sizeof got, 0);
    CHECK_EQ(length, (long)strlen(text));
    CHECK(memcmp(got, text, (size_t)length) == 0);
}

bool has_datagram(int fd)
{
    return is_readable(fd);
}

/* ---- dispatching --------------------------------------------------------------- */

int run_once(struct fdmux_loop *loop)
{
    int r = poll_once(loop);

    VERIFY(loop);
    return r;
}

void run_until(struct fdmux_loop *loop, const int *counter, int count)
{
    int64_t deadline_ns = fdmux_loop_now(loop) + 10000 * MS;

    while (*counter < count) {
        int r = fdmux_loop_dispatch(loop, MS, NULL, 0);

        CHECK(r >= 0 || r == -EINTR);
        CHECK(fdmux_loop_now(loop) < deadline_ns);
    }
    VERIFY(loop);
}

void end_with(struct fdmux_loop *loop, struct listener *listener, int endpoint_count)
{
    fdmux_loop_destroy(loop);
    CHECK_EQ(listener->counts[FDMUX_DATAGRAM_CLOSED], endpoint_count);
    CHECK_EQ(listener->destroyed, endpoint_count);
    free(listener);
}
