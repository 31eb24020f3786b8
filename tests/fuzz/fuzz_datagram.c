/* fuzz_datagram.c: turns bytes into calls of datagram endpoints, also in callbacks.
 *
 * A byte chooses a call, the next ones its arguments. Endpoints are UDP over IPv4 and
 * IPv6, or Unix; bound, connected, or made of sockets. They talk to each other and to
 * plain sockets. System calls fail, functions return errors, tokens are stale. A
 * datagram names its own length, and its bytes follow from that: so each one that
 * arrives must be whole, or be told as truncated. At the end every datagram is
 * accounted for, `destroyed` is called once, and memory and descriptors balance.
 * Anything else aborts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fuzz_core.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "choose.h"
#include "fdmux_datagram.h"
#include "macos.h"
#include "testing.h"

#define MUST(condition)                                                                \
    do {                                                                               \
        if (!(condition)) {                                                            \
            (void)fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__,         \
                          #condition);                                                 \
            abort();                                                                   \
        }                                                                              \
    } while (0)

enum { ENDPOINTS_MAX = 24, TALKERS_MAX = 40, DEPTH_MAX = 3, CALLS_MAX = 250 };
enum { SEND_MAX = 70, NUMBER = 4, BYTES_MAX = 1 << 16 };

struct run;

struct endpoint {
    struct run *run;
    uint64_t token;
    struct sockaddr_storage address; /* its own */
    socklen_t address_size;
    uint32_t flags;
    uint32_t size_max;
    uint32_t queue_low;
    uint64_t offered; /* datagrams given to send and send_many */
    uint64_t received;
    bool has_segments; /* their counts are not kept here */
    bool is_paused;
    bool is_closing;
    bool is_closed;
    int destroyed;
};

struct run {
    const uint8_t *bytes;
    size_t left;
    struct fdmux_loop *loop;
    struct endpoint endpoints[ENDPOINTS_MAX];
    uint32_t count;
    int talkers[TALKERS_MAX];
    uint32_t talker_count;
    int borrowed[ENDPOINTS_MAX];
    uint32_t borrowed_count;
    int depth;
    int calls;
};

static unsigned char scratch[BYTES_MAX];
static unsigned char room[SEND_MAX][2048];

static uint8_t take(struct run *run)
{
    if (run->left == 0)
        return 0;
    run->left--;
    return *run->bytes++;
}

static int allowed(int result)
{
    static const int errors[] = {
        EINVAL,     EIDRM,        ESTALE,     EBUSY,         ENOMEM,      EMFILE,
        EBADF,      EPERM,        ENOBUFS,    EOPNOTSUPP,    ECANCELED,   EPIPE,
        EINTR,      EAGAIN,       ENOTCONN,   ECONNREFUSED,  ENOSPC,      EMSGSIZE,
        EADDRINUSE, EDESTADDRREQ, EPROTOTYPE, EAFNOSUPPORT,  ENETUNREACH, EISCONN,
        ECONNRESET, ENOENT,       EACCES,     EADDRNOTAVAIL, EIO,         ENOSYS};

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (result >= 0 || result == -errors[i])
            return result;
    (void)fprintf(stderr, "an error that no header names: %d\n", result);
    abort();
}

static void call_one(struct run *run);

/* ---- contents ------------------------------------------------------------------ */

static unsigned char pattern(size_t place, uint32_t length)
{
    return (unsigned char)(place * 7 + length);
}

/* A datagram is empty, or begins with its length. */
static void fill(unsigned char *bytes, uint32_t length)
{
    memcpy(bytes, &length, length == 0 ? 0 : NUMBER);
    for (size_t i = NUMBER; i < length; i++)
        bytes[i] = pattern(i, length);
}

static void check_content(const unsigned char *bytes, uint32_t length, bool is_cut)
{
    uint32_t sent;

    if (length < NUMBER) {
        MUST(length == 0 || is_cut);
        return;
    }
    memcpy(&sent, bytes, NUMBER);
    MUST(is_cut ? sent > length : sent == length);
    for (size_t i = NUMBER; i < length; i++)
        MUST(bytes[i] == pattern(i, sent));
}

static uint32_t take_length(struct run *run, uint32_t length_max)
{
    uint8_t choice = take(run);
    uint32_t length = choice < 0x10 ? 0 : choice < 0xf0 ? choice : choice * 9U;

    return length < length_max ? length : length_max;
}

/* ---- functions of the loop ----------------------------------------------------- */

/* Make a few calls inside a function, then return a result that may be an error. */
static int inside(struct run *run)
{
    if (run->depth >= DEPTH_MAX)
        return 0;
    run->depth++;
    for (uint8_t count = take(run) % 4; count > 0; count--)
        call_one(run);
    run->depth--;
    return take(run) % 16 == 15 ? -ECANCELED : 0;
}

static void check_datagram(const struct endpoint *endpoint,
                           const struct fdmux_datagram *datagram)
{
    bool is_cut = (datagram->flags & FDMUX_DATAGRAM_TRUNCATED) != 0;

    check_content(datagram->data, datagram->length, is_cut);
    MUST(datagram->length <= endpoint->size_max);
    MUST(datagram->address == NULL || datagram->address_size >= sizeof(sa_family_t));
    if ((endpoint->flags & FDMUX_DATAGRAM_LOCAL) == 0)
        MUST(datagram->local == NULL);
    if ((endpoint->flags & FDMUX_DATAGRAM_ECN) == 0)
        MUST((datagram->flags & FDMUX_DATAGRAM_HAS_ECN) == 0);
    MUST(datagram->ecn <= 3 && datagram->segment_size == 0);
}

static void check_received(struct run *run, struct endpoint *endpoint,
                           const struct fdmux_datagram_event *event)
{
    MUST(!endpoint->is_paused && !endpoint->is_closing && event->count > 0);
    for (uint32_t i = 0; i < event->count; i++)
        check_datagram(endpoint, &event->datagrams[i]);
    endpoint->received += event->count;
    if (take(run) % 4 != 0 || endpoint->is_closing)
        return;
    /* The echo: what was received can be sent as it is. What was cut is not whole. */
    for (uint32_t i = 0; i < event->count; i++)
        if ((event->datagrams[i].flags & FDMUX_DATAGRAM_TRUNCATED) != 0)
            return;
    if (allowed(fdmux_datagram_send_many(run->loop, event->endpoint, event->datagrams,
                                         event->count)) >= 0)
        endpoint->offered += event->count;
}

static int on_event(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                    void *userdata)
{
    struct endpoint *endpoint = userdata;
    struct run *run = endpoint->run;
    int queued;

    MUST(loop == run->loop && event->endpoint == endpoint->token);
    MUST(!endpoint->is_closed && endpoint->destroyed == 0);
    switch (event->kind) {
    case FDMUX_DATAGRAM_RECEIVED:
        check_received(run, endpoint, event);
        break;
    case FDMUX_DATAGRAM_ERROR:
        MUST(event->error > 0 && event->datagrams == NULL);
        break;
    case FDMUX_DATAGRAM_WRITABLE:
        queued = fdmux_datagram_queued(loop, event->endpoint);
        MUST(queued < 0 || (uint32_t)queued <= endpoint->queue_low);
        break;
    default:
        MUST(event->kind == FDMUX_DATAGRAM_CLOSED && event->error >= 0);
        endpoint->is_closed = true;
        return 0;
    }
    return inside(run);
}

static void on_destroyed(void *userdata)
{
    ((struct endpoint *)userdata)->destroyed++;
}

/* ---- making endpoints ---------------------------------------------------------- */

static void add_talker(struct run *run, int fd)
{
    MUST(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
    if (run->talker_count < TALKERS_MAX)
        run->talkers[run->talker_count++] = fd;
    else
        (void)close(fd);
}

static struct endpoint *any_endpoint(struct run *run)
{
    return &run->endpoints[run->count == 0 ? 0 : take(run) % run->count];
}

static uint64_t any_token(struct run *run)
{
    const struct endpoint *endpoint = any_endpoint(run);
    uint8_t choice = take(run);

    return choice == 0xff ? endpoint->token + (UINT64_C(1) << 33) : endpoint->token;
}

static struct fdmux_datagram_options options_for(struct run *run,
                                                 struct endpoint *endpoint)
{
    static const uint32_t sizes[] = {0, 0, 1, 100, 2000, 65536, 262144, 9};
    uint8_t choice = take(run);
    struct fdmux_datagram_options options = {.struct_size = sizeof options,
                                             .fn = on_event,
                                             .userdata = endpoint,
                                             .destroyed = on_destroyed};

    options.flags = take(run) & (FDMUX_DATAGRAM_LOCAL | FDMUX_DATAGRAM_ECN |
                                 FDMUX_DATAGRAM_ERRORS | FDMUX_DATAGRAM_GRO);
    options.size_max = sizes[choice % 8];
    options.queue_max = (choice & 8) != 0 ? 0 : 1500;
    options.queue_low = (choice & 16) != 0 ? 0 : 200;
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->run = run;
    endpoint->flags = options.flags;
    endpoint->size_max = options.size_max == 0 ? 65536 : options.size_max;
    if ((options.flags & FDMUX_DATAGRAM_GRO) != 0 && endpoint->size_max < 65536)
        endpoint->size_max = 65536; /* what the kernel joins */
    endpoint->queue_low = options.queue_low == 0 ? 16384 : options.queue_low;
    return options;
}

/* An address of another endpoint, or one at which nobody is. */
static struct fdmux_datagram_address address_near(struct run *run, bool is_inet6)
{
    struct fdmux_datagram_address address = {.struct_size = sizeof address};
    const struct endpoint *other = any_endpoint(run);

    address.host = is_inet6 ? "::1" : "127.0.0.1";
    address.port = 9;
    if (other->address.ss_family == (is_inet6 ? AF_INET6 : AF_INET) && take(run) % 8)
        address.port = ntohs(((const struct sockaddr_in *)&other->address)->sin_port);
    return address;
}

static int open_inet(struct run *run, struct fdmux_datagram_options *options,
                     uint64_t *ret_token)
{
    uint8_t choice = take(run);
    bool is_inet6 = (choice & 1) != 0;
    struct fdmux_datagram_address address = address_near(run, is_inet6);

    if ((choice & 6) == 0)
        return fdmux_datagram_connect(run->loop, &address, NULL, options, ret_token);
    address.port = 0;
    address.flags = (choice & 8) != 0 ? FDMUX_DATAGRAM_REUSE_PORT : 0;
    return fdmux_datagram_bind(run->loop, &address, options, ret_token);
}

static int open_unix(struct run *run, struct fdmux_datagram_options *options,
                     uint64_t *ret_token)
{
    static unsigned number;
    char path[64] = "";
    int length =
        snprintf(path + 1, sizeof path - 1, "fuzz-%d-%u", (int)getpid(), number++);
    struct fdmux_datagram_address address = {.struct_size = sizeof address,
                                             .path = path};

    (void)run;
    address.path_length = (uint16_t)(length + 1);
    return fdmux_datagram_bind(run->loop, &address, options, ret_token);
}

/* One end of a pair of Unix sockets, whose queue is soon full; or a borrowed socket. */
static int open_pair(struct run *run, struct fdmux_datagram_options *options,
                     uint64_t *ret_token)
{
    int small = 4096;
    int pair[2];
    int r;

    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return -ECANCELED;
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    add_talker(run, pair[1]);
    options->flags |= take(run) & FDMUX_DATAGRAM_BORROW;
    r = fdmux_datagram_add(run->loop, pair[0], options, ret_token);
    if (r == 0 && (options->flags & FDMUX_DATAGRAM_BORROW) != 0)
        run->borrowed[run->borrowed_count++] = pair[0];
    else if (r < 0)
        (void)close(pair[0]);
    return r;
}

static void open_endpoint(struct run *run)
{
    struct endpoint *endpoint = &run->endpoints[run->count];
    struct fdmux_datagram_options options;
    int r;

    if (run->count == ENDPOINTS_MAX)
        return;
    options = options_for(run, endpoint);
    switch (take(run) % 4) {
    case 0:
        r = open_pair(run, &options, &endpoint->token);
        break;
    case 1:
        r = open_unix(run, &options, &endpoint->token);
        break;
    default:
        r = open_inet(run, &options, &endpoint->token);
    }
    if (allowed(r) < 0)
        return;
    endpoint->address_size = sizeof endpoint->address;
    (void)getsockname(fdmux_datagram_fd(run->loop, endpoint->token),
                      (struct sockaddr *)&endpoint->address, &endpoint->address_size);
    run->count++;
}

/* ---- using them ---------------------------------------------------------------- */

static void describe(struct run *run, struct fdmux_datagram *datagram, uint32_t index)
{
    struct endpoint *to = any_endpoint(run);
    uint8_t choice = take(run);

    *datagram = (struct fdmux_datagram){.data = room[index]};
    datagram->length = take_length(run, sizeof room[index]);
    fill(room[index], datagram->length);
    if ((choice & 1) != 0)
        return; /* to the peer, if there is one */
    datagram->address = &to->address;
    datagram->address_size = (uint16_t)to->address_size;
}

static void send_some(struct run *run)
{
    struct fdmux_datagram datagrams[SEND_MAX];
    struct endpoint *endpoint = any_endpoint(run);
    uint32_t count = take(run);

    count = count < 0xe0 ? count % 6 : SEND_MAX;
    for (uint32_t i = 0; i < count; i++)
        describe(run, &datagrams[i], i);
    if (allowed(fdmux_datagram_send_many(run->loop, endpoint->token, datagrams,
                                         count)) >= 0)
        endpoint->offered += count;
}

static void send_one(struct run *run)
{
    struct endpoint *endpoint = any_endpoint(run);
    struct fdmux_datagram datagram;
    int r;

    describe(run, &datagram, 0);
    r = allowed(fdmux_datagram_send(run->loop, endpoint->token, &datagram));
    if (r != -EPIPE && r != -EIDRM && r != -ESTALE && r != -EINVAL)
        endpoint->offered++;
    else if (r == -EINVAL)
        endpoint->has_segments = true; /* the kernel's, or ours: not known */
}

/* One buffer of several datagrams, each of which is whole. */
static void send_segments(struct run *run)
{
    struct endpoint *endpoint = any_endpoint(run);
    struct endpoint *to = any_endpoint(run);
    uint16_t size = (uint16_t)(NUMBER + take(run) * 4U);
    uint32_t count = 1 + take(run) % 130;
    struct fdmux_datagram datagram = {.data = scratch, .segment_size = size};

    while (datagram.length + size <= BYTES_MAX && count-- > 0) {
        fill(scratch + datagram.length, size);
        datagram.length += size;
    }
    if ((take(run) & 1) != 0) {
        datagram.address = &to->address;
        datagram.address_size = (uint16_t)to->address_size;
    }
    endpoint->has_segments = true;
    (void)allowed(fdmux_datagram_send(run->loop, endpoint->token, &datagram));
}

static void talk(struct run *run)
{
    int fd = run->talker_count == 0 ? -1 : run->talkers[take(run) % run->talker_count];
    struct endpoint *to = any_endpoint(run);
    uint32_t length = take_length(run, sizeof room[0]);
    bool is_connected = run->talker_count == 0 || (take(run) & 1) != 0;

    fill(room[0], length);
    for (uint8_t count = 1 + take(run) % 4; count > 0; count--)
        (void)!sendto(fd, room[0], length, MSG_NOSIGNAL,
                      is_connected ? NULL : (struct sockaddr *)&to->address,
                      is_connected ? 0 : to->address_size); /* or is lost */
}

static void listen_to(struct run *run)
{
    int fd = run->talker_count == 0 ? -1 : run->talkers[take(run) % run->talker_count];

    for (uint8_t count = take(run) % 16; count > 0; count--) {
        ssize_t size = recv(fd, scratch, sizeof scratch, 0);

        if (size >= 0)
            check_content(scratch, (uint32_t)size, false);
    }
}

static void close_talker(struct run *run)
{
    uint32_t index = take(run);

    if (run->talker_count == 0 || index >= run->talker_count)
        return;
    (void)close(run->talkers[index]);
    run->talkers[index] = run->talkers[--run->talker_count];
}

static void pause_or_resume(struct run *run)
{
    struct endpoint *endpoint = any_endpoint(run);

    if ((take(run) & 1) != 0) {
        if (allowed(fdmux_datagram_pause(run->loop, endpoint->token)) == 0)
            endpoint->is_paused = true;
    } else if (allowed(fdmux_datagram_resume(run->loop, endpoint->token)) == 0) {
        endpoint->is_paused = false;
    }
}

static void check_counts(const struct endpoint *endpoint,
                         const struct fdmux_datagram_stats *stats)
{
    MUST(endpoint->has_segments ||
         stats->sent + stats->dropped + stats->failed + stats->queued_count ==
             endpoint->offered);
    MUST((stats->queued_count == 0) == (stats->queued == 0));
    MUST(stats->received >= endpoint->received);
}

static void ask(struct run *run)
{
    struct endpoint *endpoint = any_endpoint(run);
    struct fdmux_datagram_stats stats = {.struct_size = sizeof stats};

    if (allowed(fdmux_datagram_stats(run->loop, endpoint->token, &stats)) == 0)
        check_counts(endpoint, &stats);
    (void)allowed(fdmux_datagram_fd(run->loop, any_token(run)));
    (void)allowed(fdmux_datagram_queued(run->loop, any_token(run)));
    (void)allowed(fdmux_datagram_features(run->loop));
    endpoint = any_endpoint(run);
    if ((take(run) & 3) == 0 &&
        allowed(fdmux_datagram_await_writable(run->loop, endpoint->token, 64)) == 0)
        endpoint->queue_low = 64;
}

static void close_endpoint(struct run *run)
{
    struct endpoint *endpoint = any_endpoint(run);
    uint32_t flags = take(run) % 2 == 0 ? 0 : FDMUX_DATAGRAM_DROP;

    if (allowed(fdmux_datagram_close(run->loop, endpoint->token, flags)) == 0)
        endpoint->is_closing = true;
}

static void dispatch(struct run *run)
{
    int64_t wait_ns = take(run) == 0xff ? 3000000 : 0; /* a full queue is tried again */
    int r = fdmux_loop_dispatch(run->loop, wait_ns, NULL, 0);

    (void)allowed(r);
    MUST(run->depth == 0 || r == -EBUSY || r == -ESTALE);
}

static void fail_soon(struct run *run)
{
    static const int errors[] = {ENOMEM,  EAGAIN,   EINTR, ECONNREFUSED,
                                 ENOBUFS, EMSGSIZE, EIO,   ENOSYS};
    static const uint32_t kinds[] = {FDMUX_CALL_ANY & ~FDMUX_CALL_CLOSE,
                                     FDMUX_CALL_RECVMMSG,
                                     FDMUX_CALL_SENDMMSG | FDMUX_CALL_SEND,
                                     FDMUX_CALL_RECV,
                                     FDMUX_CALL_MEMORY | FDMUX_CALL_EPOLL_CTL,
                                     FDMUX_CALL_SOCKET,
                                     FDMUX_CALL_SENDMMSG,
                                     0};
    uint8_t choice = take(run);
    uint8_t kind = take(run);
    int error = errors[choice & 7];

    /* Not persistent for EINTR: the core would retry for ever. */
    fdmux_testing_fail(kinds[kind & 7], 1 + (choice >> 4), error,
                       error != EINTR && (choice & 8) != 0);
}

static void (*const calls[])(struct run *) = {
    open_endpoint, open_endpoint,  send_one,  send_some,       send_segments, talk,
    listen_to,     dispatch,       dispatch,  dispatch,        ask,           fail_soon,
    close_talker,  close_endpoint, send_some, pause_or_resume,
};

static void call_one(struct run *run)
{
    if (run->calls++ >= CALLS_MAX)
        return;
    calls[take(run) % (sizeof calls / sizeof *calls)](run);
    MUST(fdmux_testing_verify(run->loop) == 0);
}

/* ---- one input ----------------------------------------------------------------- */

static int count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static bool open_run(struct run *run, const uint8_t *data, size_t size)
{
    struct fdmux_loop_options options = {.struct_size = sizeof options};
    uint32_t backends = 0;

    memset(run, 0, sizeof *run);
    run->bytes = data;
    run->left = size;
    while (fdmux__backend_name(backends) != NULL)
        backends++;
    options.backend = fdmux__backend_name(take(run) % backends);
    return fdmux_loop_create(&options, &run->loop) == 0;
}

static void end_run(struct run *run)
{
    fdmux_testing_fail(0, 0, 0, 0);
    for (uint32_t i = 0; i < run->count; i++) {
        struct fdmux_datagram_stats stats = {.struct_size = sizeof stats};

        if (fdmux_datagram_stats(run->loop, run->endpoints[i].token, &stats) == 0)
            check_counts(&run->endpoints[i], &stats);
    }
    run->left = 0; /* its functions do nothing more */
    (void)fdmux_loop_destroy(run->loop);
    for (uint32_t i = 0; i < run->count; i++)
        MUST(run->endpoints[i].is_closed && run->endpoints[i].destroyed == 1);
    for (uint32_t i = 0; i < run->talker_count; i++)
        MUST(close(run->talkers[i]) == 0);
    for (uint32_t i = 0; i < run->borrowed_count; i++)
        MUST(close(run->borrowed[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run run;
    int64_t allocations = fdmux_testing_allocations();
    int descriptors = count_descriptors();

    fdmux_testing_fail(0, 0, 0, 0);
    if (!open_run(&run, data, size))
        return 0;
    while (run.left > 0 && run.calls < CALLS_MAX)
        call_one(&run);
    end_run(&run);
    MUST(fdmux_testing_allocations() == allocations);
    MUST(count_descriptors() == descriptors);
    return 0;
}
