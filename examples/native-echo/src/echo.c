/* echo.c: the echo service of echo.h, on the readiness that fdmux reports.
 *
 * Its one rule: only the `destroyed` of a watcher closes a descriptor and frees memory.
 * So a connection may end by itself, by echo_stop, or because the Python program closes
 * the loop.
 *
 * While the kernel does not take all bytes of a client's echo, the connection is
 * watched for writing only: nothing more is read from a client that does not read. */
#define _GNU_SOURCE /* accept4 */
#include "echo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,
    BACKLOG = 1024,
    ACCEPTS_PER_CALL = 64,       /* then other watchers run */
    RETRY_NS = 50 * 1000 * 1000, /* retry an accept that found no free descriptor */
};

struct connection {
    struct echo *echo;
    struct connection *next;
    struct connection *previous;
    uint64_t io;
    int fd;
    size_t kept_start;
    size_t kept_size;
    unsigned char *kept; /* NULL unless a send was incomplete */
};

struct echo {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
    unsigned references; /* of the caller, and of each watcher */
    uint64_t listener;
    uint64_t retry;
    int listener_fd;
    int port;
    struct connection *connections;
    struct echo_counts counts;
    unsigned char buffer[BUFFER_SIZE]; /* shared: empty between calls */
};

void echo_release(struct echo *echo)
{
    if (--echo->references == 0)
        free(echo);
}

/* ---- one connection -------------------------------------------------------------- */

static void on_connection_destroyed(void *userdata)
{
    struct connection *connection = userdata;
    struct echo *echo = connection->echo;

    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        echo->connections = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    echo->counts.connections--;
    (void)close(connection->fd); /* close(2): closed even on error */
    free(connection->kept);
    free(connection);
    echo_release(echo);
}

static int watch(struct connection *connection, uint32_t events)
{
    struct echo *echo = connection->echo;

    return echo->api->io_update(echo->loop, connection->io, events);
}

static int keep_rest(struct connection *connection, const unsigned char *rest,
                     size_t size)
{
    connection->kept = malloc(size);
    if (connection->kept == NULL)
        return -ENOMEM;
    memcpy(connection->kept, rest, size);
    connection->kept_start = 0;
    connection->kept_size = size;
    connection->echo->counts.kept++;
    return watch(connection, FDMUX_WRITE);
}

/* Returns how many bytes the kernel took, 0 if it takes none now, or -errno. */
static ssize_t send_some(struct connection *connection, const unsigned char *bytes,
                         size_t size)
{
    ssize_t sent = send(connection->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    connection->echo->counts.bytes += (uint64_t)sent;
    return sent;
}

static int send_kept(struct connection *connection)
{
    ssize_t sent = send_some(connection, connection->kept + connection->kept_start,
                             connection->kept_size - connection->kept_start);

    if (sent < 0)
        return (int)sent;
    connection->kept_start += (size_t)sent;
    if (connection->kept_start < connection->kept_size)
        return 0;
    free(connection->kept);
    connection->kept = NULL;
    return watch(connection, FDMUX_READ);
}

/* Returns 1 when the client has sent and received everything, 0 to go on, or -errno. */
static int echo_once(struct connection *connection)
{
    unsigned char *buffer = connection->echo->buffer;
    ssize_t received = recv(connection->fd, buffer, BUFFER_SIZE, MSG_DONTWAIT);
    ssize_t sent;

    if (received < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (received == 0)
        return 1;
    sent = send_some(connection, buffer, (size_t)received);
    if (sent < 0 || sent == received)
        return sent < 0 ? (int)sent : 0;
    return keep_rest(connection, buffer + sent, (size_t)(received - sent));
}

/* An error of a connection ends that connection only. An error of the service itself
 * would be returned, and raised as an OSError where the loop is run. */
static int on_ready(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                    void *userdata)
{
    struct connection *connection = userdata;
    struct echo *echo = connection->echo;
    int r = connection->kept != NULL ? send_kept(connection) : echo_once(connection);

    (void)events;
    if (r == 0)
        return 0;
    echo->counts.failed += r < 0 ? 1 : 0;
    return echo->api->io_remove(loop, io);
}

/* ---- accepting ------------------------------------------------------------------- */

static int add_connection(struct echo *echo, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = fd,
        .events = FDMUX_READ,
        .fn = on_ready,
        .userdata = connection,
        .destroyed = on_connection_destroyed,
    };
    int r;

    if (connection == NULL)
        return -ENOMEM;
    connection->echo = echo;
    connection->fd = fd;
    r = echo->api->io_add(echo->loop, &options, &connection->io);
    if (r < 0) {
        free(connection); /* not registered: `destroyed` will not be called */
        return r;
    }
    echo->references++;
    connection->next = echo->connections;
    if (connection->next != NULL)
        connection->next->previous = connection;
    echo->connections = connection;
    echo->counts.connections++;
    echo->counts.accepted++;
    return 0; /* NOLINT(clang-analyzer-unix.Malloc): the loop holds it */
}

/* Returns 0, or -errno if no further connection can be accepted now. */
static int accept_one(struct echo *echo)
{
    int fd = accept4(echo->listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int on = 1;
    int r;

    if (fd < 0)
        return errno == ECONNABORTED || errno == EINTR ? 0 : -errno;
    /* Optional: the echo works without it. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    r = add_connection(echo, fd);
    if (r < 0)
        (void)close(fd);
    return r;
}

/* Without a free descriptor or memory the listener stays readable: pause for a
 * while. */
static int pause_accepting(struct echo *echo)
{
    const struct fdmux_api *api = echo->api;
    int r = api->io_update(echo->loop, echo->listener, 0);

    if (r < 0)
        return r;
    return api->timer_arm(echo->loop, echo->retry, api->loop_now(echo->loop) + RETRY_NS,
                          0);
}

static int on_connections(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                          void *userdata)
{
    struct echo *echo = userdata;
    int r = 0;

    (void)loop;
    (void)io;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_CALL && r == 0; i++)
        r = accept_one(echo);
    return r == 0 || r == -EAGAIN ? 0 : pause_accepting(echo);
}

static int on_retry(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct echo *echo = userdata;

    (void)timer;
    return echo->api->io_update(loop, echo->listener, FDMUX_READ);
}

/* ---- start and stop -------------------------------------------------------------- */

static void on_listener_destroyed(void *userdata)
{
    struct echo *echo = userdata;

    (void)close(echo->listener_fd);
    echo->listener_fd = -1;
    echo_release(echo);
}

static void on_retry_destroyed(void *userdata)
{
    echo_release(userdata);
}

/* Returns a listening socket, or -errno. */
static int open_listener(int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        r = -errno;
        (void)close(fd);
        return r;
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int watch_listener(struct echo *echo)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = echo->listener_fd,
        .events = FDMUX_READ,
        .fn = on_connections,
        .userdata = echo,
        .destroyed = on_listener_destroyed,
    };
    int r = echo->api->io_add(echo->loop, &options, &echo->listener);

    if (r < 0)
        (void)close(echo->listener_fd);
    else
        echo->references++;
    return r;
}

static int add_retry_timer(struct echo *echo)
{
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = on_retry,
        .userdata = echo,
        .destroyed = on_retry_destroyed,
    };
    int r = echo->api->timer_add(echo->loop, &options, &echo->retry);

    if (r == 0)
        echo->references++;
    return r;
}

int echo_start(const struct fdmux_api *api, struct fdmux_loop *loop,
               struct echo **ret_echo)
{
    struct echo *echo = calloc(1, sizeof *echo);
    int r;

    if (echo == NULL)
        return -ENOMEM;
    echo->api = api;
    echo->loop = loop;
    echo->references = 1; /* for the caller */
    r = echo->listener_fd = open_listener(&echo->port);
    if (r >= 0)
        r = watch_listener(echo);
    if (r >= 0)
        r = add_retry_timer(echo);
    if (r < 0) {
        echo_stop(echo);
        echo_release(echo);
        return r;
    }
    *ret_echo = echo;
    return 0;
}

/* A stale token is harmless: removal returns an error. */
void echo_stop(struct echo *echo)
{
    const struct fdmux_api *api = echo->api;
    struct connection *connection = echo->connections;

    (void)api->timer_remove(echo->loop, echo->retry);
    (void)api->io_remove(echo->loop, echo->listener);
    while (connection != NULL) {
        /* Outside of a batch, `destroyed` frees the connection before io_remove
         * returns. */
        struct connection *next = connection->next;

        (void)api->io_remove(echo->loop, connection->io);
        connection = next;
    }
}

int echo_port(const struct echo *echo)
{
    return echo->port;
}

struct echo_counts echo_count(const struct echo *echo)
{
    return echo->counts;
}
