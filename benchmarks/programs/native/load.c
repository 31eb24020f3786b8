/* Closed-loop load for an echo server: every connection sends a message, waits for the
 * whole echo, compares each byte, and sends the next.
 *
 *     load PORT CONNECTIONS SIZE WARMUP MESSAGES SECONDS
 *
 * Connects and warms up, prints `ready`, waits for a line, runs until MESSAGES are sent
 * or SECONDS are over, waits for the last echoes, prints `done MESSAGES NANOSECONDS`,
 * and keeps the connections open until standard input ends, so that the runner can read
 * the server's CPU clock around the messages alone. A wrong, missing or extra byte, a
 * closed connection or a stall ends it with status 1. */
#include "echo_socket.h"
#include "pattern.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>

enum {
    EVENT_CAPACITY = 1024,
    STALL_MS = 10 * 1000,
    /* A server may have a short accept queue; an overflow costs a retry after a
     * second. */
    CONNECTS_PER_ACCEPT_CHECK = 64,
};

struct connection {
    int fd;
    bool is_waiting;
    size_t index;
    uint64_t message_count;
    const unsigned char *message;
    size_t sent;
    size_t received;
};

struct load {
    int epoll_fd;
    struct connection *connections;
    size_t connection_count;
    size_t message_size;
    unsigned char *pattern;
    uint64_t unsent_count;
    uint64_t echoed_count;
    size_t waiting_count;
    int64_t deadline_ns;
};

static unsigned char receive_buffer[ECHO_BUFFER_SIZE];

static int64_t now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        abort(); /* clock_gettime(2): fails only for an unknown clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int complain(const struct connection *connection, const char *what)
{
    (void)fprintf(stderr, "load: connection %zu, message %llu: %s\n", connection->index,
                  (unsigned long long)connection->message_count,
                  what); /* the exit status reports it, too */
    return -EPROTO;
}

static int send_rest(struct load *load, struct connection *connection)
{
    while (connection->sent < load->message_size) {
        ssize_t sent = send(connection->fd, connection->message + connection->sent,
                            load->message_size - connection->sent, MSG_NOSIGNAL);

        if (sent < 0)
            return errno == EAGAIN ? 0 : complain(connection, strerror(errno));
        connection->sent += (size_t)sent;
    }
    return 0;
}

static int start_message(struct load *load, struct connection *connection)
{
    load->unsent_count--;
    load->waiting_count++;
    connection->is_waiting = true;
    connection->message =
        pattern_message(load->pattern, connection->index, connection->message_count);
    connection->message_count++;
    connection->sent = 0;
    connection->received = 0;
    return send_rest(load, connection);
}

static int check_echo(struct connection *connection, size_t size)
{
    if (!connection->is_waiting || size > connection->sent - connection->received)
        return complain(connection, "more bytes came back than were sent");
    if (memcmp(receive_buffer, connection->message + connection->received, size) != 0)
        return complain(connection, "the echo differs from the message");
    connection->received += size;
    return 0;
}

/* Edge-triggered: read until a short read shows that the socket is empty. */
static int receive_echo(struct connection *connection)
{
    ssize_t received;

    do {
        int r;

        received = recv(connection->fd, receive_buffer, sizeof receive_buffer, 0);
        if (received < 0)
            return errno == EAGAIN ? 0 : complain(connection, strerror(errno));
        if (received == 0)
            return complain(connection, "closed by the server");
        r = check_echo(connection, (size_t)received);
        if (r < 0)
            return r;
    } while ((size_t)received == sizeof receive_buffer);
    return 0;
}

static int serve_connection(struct load *load, struct connection *connection)
{
    int r = receive_echo(connection);

    if (r < 0 || !connection->is_waiting)
        return r;
    if (connection->received < load->message_size)
        return send_rest(load, connection);
    connection->is_waiting = false;
    load->waiting_count--;
    load->echoed_count++;
    return load->unsent_count > 0 ? start_message(load, connection) : 0;
}

static int serve_batch(struct load *load)
{
    struct epoll_event events[EVENT_CAPACITY];
    int count = epoll_wait(load->epoll_fd, events, EVENT_CAPACITY, STALL_MS);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    if (count == 0)
        return -ETIMEDOUT;
    for (int i = 0; i < count; i++) {
        int r = serve_connection(load, events[i].data.ptr);

        if (r < 0)
            return r;
    }
    if (now_ns() >= load->deadline_ns)
        load->unsent_count = 0;
    return 0;
}

/* After the last echo there must be nothing left to read. */
static int check_silence(const struct load *load)
{
    for (size_t i = 0; i < load->connection_count; i++) {
        struct connection *connection = &load->connections[i];
        ssize_t received = recv(connection->fd, receive_buffer, 1, MSG_PEEK);

        if (received >= 0)
            return complain(connection, "surplus bytes or an early end");
        if (errno != EAGAIN)
            return complain(connection, strerror(errno));
    }
    return 0;
}

static int run_messages(struct load *load, uint64_t count, int64_t seconds)
{
    int r = 0;

    load->deadline_ns = now_ns() + seconds * 1000000000;
    load->unsent_count = count;
    load->echoed_count = 0;
    for (size_t i = 0; i < load->connection_count && load->unsent_count > 0; i++) {
        r = start_message(load, &load->connections[i]);
        if (r < 0)
            return r;
    }
    while (load->waiting_count > 0) {
        r = serve_batch(load);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Send one byte and receive its echo, blocking: all earlier connections are then
 * accepted. */
static int await_accept(int fd)
{
    struct timeval timeout = {.tv_sec = STALL_MS / 1000};
    unsigned char byte = 'f';

    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) < 0)
        return -errno;
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
        return -errno;
    return 0;
}

static int connect_one(struct load *load, struct connection *connection,
                       const struct sockaddr_in *address)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                .data.ptr = connection};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    connection->fd = fd;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return -errno;
    r = echo_set_nodelay(fd);
    if (r == 0 && (connection->index + 1) % CONNECTS_PER_ACCEPT_CHECK == 0)
        r = await_accept(fd);
    if (r < 0)
        return r;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int connect_all(struct load *load, in_port_t port)
{
    struct sockaddr_in address = echo_loopback(port);

    for (size_t i = 0; i < load->connection_count; i++) {
        int r;

        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): -errno is not 0 */
        load->connections[i].index = i;
        r = connect_one(load, &load->connections[i], &address);
        if (r < 0)
            return r;
    }
    return 0;
}

static int prepare(struct load *load)
{
    if (load->connection_count == 0 || load->message_size == 0)
        return -EINVAL;
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load->epoll_fd < 0)
        return -errno;
    load->connections = calloc(load->connection_count, sizeof *load->connections);
    load->pattern = pattern_create(load->message_size);
    return load->connections == NULL || load->pattern == NULL ? -ENOMEM : 0;
}

static int say(const char *line)
{
    return fputs(line, stdout) < 0 || fflush(stdout) != 0 ? -EIO : 0;
}

static int measure(struct load *load, uint64_t count, int64_t seconds)
{
    char line[80];
    int64_t start;
    int r = say("ready\n");

    if (r < 0 || fgets(line, sizeof line, stdin) == NULL)
        return r < 0 ? r : -EPIPE; /* the runner has ended */
    start = now_ns();
    r = run_messages(load, count, seconds);
    if (r < 0)
        return r;
    (void)snprintf(line, sizeof line, "done %llu %lld\n",
                   (unsigned long long)load->echoed_count,
                   (long long)(now_ns() - start)); /* two numbers always fit */
    r = say(line);
    if (r < 0)
        return r;
    (void)fgets(line, sizeof line, stdin); /* returns when the runner has its figures */
    return check_silence(load);
}

static uint64_t parse_count(const char *text)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > 1000000000) {
        (void)fprintf(stderr, "load: not a count: %s\n", text); /* failing anyway */
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    struct load load = {0};
    uint64_t warmup_count;
    int64_t seconds;
    int r;

    if (argc != 7) {
        (void)fputs("usage: load PORT CONNECTIONS SIZE WARMUP MESSAGES SECONDS\n",
                    stderr); /* failing anyway */
        return 2;
    }
    load.connection_count = parse_count(argv[2]);
    load.message_size = parse_count(argv[3]);
    warmup_count = parse_count(argv[4]);
    seconds = (int64_t)parse_count(argv[6]);
    /* SIGALRM ends the process in any case. */
    (void)alarm((unsigned)(seconds * 2 + 60)); /* no older alarm */

    r = prepare(&load);
    if (r == 0)
        r = connect_all(&load, (in_port_t)parse_count(argv[1]));
    if (r == 0)
        r = run_messages(&load, warmup_count, seconds);
    if (r == 0)
        r = measure(&load, parse_count(argv[5]), seconds);
    if (r < 0)
        (void)fprintf(stderr, "load: %s\n", strerror(-r)); /* failing anyway */
    free(load.connections);
    free(load.pattern);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
