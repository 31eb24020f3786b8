/* Closed-loop load for an echo server over TLS; as load.c, on the client of OpenSSL.
 *
 *     tls_load PORT CONNECTIONS SIZE WARMUP MESSAGES SECONDS
 *
 * Every connection sends a message, waits for the whole echo, compares each byte, and
 * sends the next. A wrong, missing or extra byte, a closed connection or a stall ends
 * it with status 1. What it prints and awaits is in load.c. */
#include "pattern.h"
#include "tls_client.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/epoll.h>

enum { EVENT_CAPACITY = 1024, STALL_MS = 10 * 1000 };

struct connection {
    SSL *ssl;
    size_t index;
    uint64_t message_count;
    const unsigned char *message;
    size_t sent;
    size_t received;
    bool is_waiting;
};

struct load {
    int epoll_fd;
    SSL_CTX *context;
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

static int complain(const struct connection *connection, const char *what)
{
    (void)fprintf(stderr, "tls_load: connection %zu, message %llu: %s\n",
                  connection->index, (unsigned long long)connection->message_count,
                  what); /* the exit status reports it, too */
    return -EPROTO;
}

/* Is a call that did not succeed to be repeated later? */
static int outcome(const struct connection *connection, int result)
{
    int error = SSL_get_error(connection->ssl, result);

    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return 0;
    return complain(connection, error == SSL_ERROR_ZERO_RETURN ? "closed by the server"
                                                               : "an error of TLS");
}

static int send_rest(const struct load *load, struct connection *connection)
{
    while (connection->sent < load->message_size) {
        int sent = SSL_write(connection->ssl, connection->message + connection->sent,
                             (int)(load->message_size - connection->sent));

        if (sent <= 0)
            return outcome(connection, sent);
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

/* Edge-triggered: read until OpenSSL wants more bytes. */
static int receive_echo(struct connection *connection)
{
    for (;;) {
        int received = SSL_read(connection->ssl, receive_buffer, sizeof receive_buffer);
        int r;

        if (received <= 0)
            return outcome(connection, received);
        r = check_echo(connection, (size_t)received);
        if (r < 0)
            return r;
    }
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
    if (tls_now_ns() >= load->deadline_ns)
        load->unsent_count = 0;
    return 0;
}

static int run_messages(struct load *load, uint64_t count, int64_t seconds)
{
    int r = 0;

    load->deadline_ns = tls_now_ns() + seconds * 1000000000;
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

/* After the last echo there must be nothing left to read. */
static int check_silence(const struct load *load)
{
    for (size_t i = 0; i < load->connection_count; i++) {
        int r = receive_echo(&load->connections[i]);

        if (r < 0)
            return r;
    }
    return 0;
}

static int connect_one(struct load *load, struct connection *connection, in_port_t port)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                .data.ptr = connection};
    int fd;

    connection->ssl = tls_client_open(load->context, port, NULL);
    if (connection->ssl == NULL)
        return complain(connection, "cannot connect");
    fd = SSL_get_fd(connection->ssl);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int connect_all(struct load *load, in_port_t port)
{
    for (size_t i = 0; i < load->connection_count; i++) {
        int r;

        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): prepare() has failed */
        load->connections[i].index = i;
        r = connect_one(load, &load->connections[i], port);
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
    load->context = tls_client_context();
    load->connections = calloc(load->connection_count, sizeof *load->connections);
    load->pattern = pattern_create(load->message_size);
    if (load->context == NULL || load->connections == NULL || load->pattern == NULL)
        return -ENOMEM;
    return 0;
}

static int measure(struct load *load, uint64_t count, int64_t seconds)
{
    char line[80];
    int64_t start;
    int r = tls_say("ready\n");

    if (r < 0 || fgets(line, sizeof line, stdin) == NULL)
        return r < 0 ? r : -EPIPE; /* the runner has ended */
    start = tls_now_ns();
    r = run_messages(load, count, seconds);
    if (r < 0)
        return r;
    (void)snprintf(line, sizeof line, "done %llu %lld\n",
                   (unsigned long long)load->echoed_count,
                   (long long)(tls_now_ns() - start)); /* two numbers always fit */
    r = tls_say(line);
    if (r < 0)
        return r;
    (void)fgets(line, sizeof line, stdin); /* returns when the runner has its figures */
    return check_silence(load);
}

int main(int argc, char **argv)
{
    struct load load = {0};
    int64_t seconds;
    int r;

    if (argc != 7) {
        (void)fputs("usage: tls_load PORT CONNECTIONS SIZE WARMUP MESSAGES SECONDS\n",
                    stderr); /* failing anyway */
        return 2;
    }
    load.connection_count = tls_parse_count(argv[2]);
    load.message_size = tls_parse_count(argv[3]);
    seconds = (int64_t)tls_parse_count(argv[6]);
    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write(2) */
    /* SIGALRM ends the process in any case. */
    (void)alarm((unsigned)(seconds * 2 + 60)); /* no older alarm */

    r = prepare(&load);
    if (r == 0)
        r = connect_all(&load, (in_port_t)tls_parse_count(argv[1]));
    if (r == 0)
        r = run_messages(&load, tls_parse_count(argv[4]), seconds);
    if (r == 0)
        r = measure(&load, tls_parse_count(argv[5]), seconds);
    if (r < 0)
        (void)fprintf(stderr, "tls_load: %s\n", strerror(-r)); /* failing anyway */
    for (size_t i = 0; load.connections != NULL && i < load.connection_count; i++)
        tls_client_close(load.connections[i].ssl);
    SSL_CTX_free(load.context);
    free(load.connections);
    free(load.pattern);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
