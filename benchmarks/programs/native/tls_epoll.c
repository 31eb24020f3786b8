/* An echo server over TLS on bare epoll and OpenSSL: the floor of the row `tls`.
 *
 *     tls_epoll CERTIFICATE KEY
 *
 * One thread, level-triggered. OpenSSL reads and writes the socket itself, and reads
 * ahead, so a message of one record costs one recv, one for the empty socket, and one
 * send. What the kernel does not take stays in a copy, and the connection is not read
 * until it is sent. Prints its port and serves until it is killed or its parent ends.
 */
#include "echo_socket.h"
#include "tls_server.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { EVENT_CAPACITY = 1024 };

struct connection {
    SSL *ssl;
    int fd;
    bool is_open; /* the handshake is done */
    size_t kept_start;
    size_t kept_size;
    unsigned char *kept; /* NULL unless a write was incomplete */
};

static unsigned char buffer[ECHO_BUFFER_SIZE];

static void close_connection(struct connection *connection)
{
    if (connection->is_open)
        (void)SSL_shutdown(
            connection->ssl); /* as every server here; it closes anyway */
    SSL_free(connection->ssl);
    (void)close(connection->fd); /* a failure would change nothing */
    free(connection->kept);
    free(connection);
}

static int watch(int epoll_fd, int operation, int fd, uint32_t events, void *owner)
{
    struct epoll_event event = {.events = events, .data.ptr = owner};

    return epoll_ctl(epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

static int accept_one(int epoll_fd, int listen_fd, SSL_CTX *context)
{
    int fd = echo_accept(listen_fd);
    struct connection *connection = fd < 0 ? NULL : calloc(1, sizeof *connection);
    int r = fd < 0 ? fd : -ENOMEM;

    if (connection == NULL)
        return r;
    connection->fd = fd;
    connection->ssl = SSL_new(context);
    if (connection->ssl != NULL && SSL_set_fd(connection->ssl, fd) == 1) {
        SSL_set_accept_state(connection->ssl);
        r = watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, connection);
    }
    if (r < 0)
        close_connection(connection);
    return r; /* NOLINT(clang-analyzer-unix.Malloc): the epoll set holds it */
}

static int accept_all(int epoll_fd, int listen_fd, SSL_CTX *context)
{
    int r;

    do {
        r = accept_one(epoll_fd, listen_fd, context);
    } while (r == 0);
    return r == -EAGAIN || r == -ECONNABORTED ? 0 : r;
}

/* 0 if a call that did not succeed is to be repeated when the socket is ready. */
static int outcome(const struct connection *connection, int result)
{
    int error = SSL_get_error(connection->ssl, result);

    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0
                                                                         : -ECONNRESET;
}

/* Returns how much was written, or -errno. */
static int write_some(const struct connection *connection, const unsigned char *bytes,
                      size_t size)
{
    size_t done = 0;

    while (done < size) {
        int written = SSL_write(connection->ssl, bytes + done, (int)(size - done));

        if (written <= 0)
            return outcome(connection, written) < 0 ? -ECONNRESET : (int)done;
        done += (size_t)written;
    }
    return (int)done;
}

static int keep_rest(int epoll_fd, struct connection *connection,
                     const unsigned char *rest, size_t size)
{
    connection->kept = malloc(size);
    if (connection->kept == NULL)
        return -ENOMEM;
    memcpy(connection->kept, rest, size);
    connection->kept_start = 0;
    connection->kept_size = size;
    return watch(epoll_fd, EPOLL_CTL_MOD, connection->fd, EPOLLOUT, connection);
}

static int echo(int epoll_fd, struct connection *connection)
{
    while (connection->kept == NULL) {
        int received = SSL_read(connection->ssl, buffer, sizeof buffer);
        int written;

        if (received <= 0)
            return outcome(connection, received);
        written = write_some(connection, buffer, (size_t)received);
        if (written < 0)
            return written;
        if (written < received) {
            int r = keep_rest(epoll_fd, connection, buffer + written,
                              (size_t)(received - written));

            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int write_kept(int epoll_fd, struct connection *connection)
{
    int written = write_some(connection, connection->kept + connection->kept_start,
                             connection->kept_size - connection->kept_start);
    int r;

    if (written < 0)
        return written;
    connection->kept_start += (size_t)written;
    if (connection->kept_start < connection->kept_size)
        return 0;
    free(connection->kept);
    connection->kept = NULL;
    r = watch(epoll_fd, EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
    return r < 0 ? r : echo(epoll_fd, connection); /* OpenSSL may have read ahead */
}

static void serve_connection(int epoll_fd, struct connection *connection)
{
    int r = 0;

    if (!connection->is_open) {
        r = SSL_do_handshake(connection->ssl);
        connection->is_open = r == 1;
        r = r == 1 ? 0 : outcome(connection, r);
    }
    if (r == 0 && connection->is_open)
        r = connection->kept != NULL ? write_kept(epoll_fd, connection)
                                     : echo(epoll_fd, connection);
    if (r < 0)
        close_connection(connection);
}

static int serve(int epoll_fd, int listen_fd, SSL_CTX *context)
{
    struct epoll_event events[EVENT_CAPACITY];

    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENT_CAPACITY, -1);
        int r = 0;

        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count && r == 0; i++) {
            if (events[i].data.ptr == NULL)
                r = accept_all(epoll_fd, listen_fd, context);
            else
                serve_connection(epoll_fd, events[i].data.ptr);
        }
        if (r < 0)
            return r;
    }
}

int main(int argc, char **argv)
{
    SSL_CTX *context = argc == 3 ? tls_server_context(argv[1], argv[2]) : NULL;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listen_fd = echo_listen();
    int r;

    if (context == NULL || epoll_fd < 0 || listen_fd < 0) {
        (void)fputs("tls_epoll: cannot listen\n", stderr); /* failing anyway */
        return EXIT_FAILURE;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write(2) */
    r = watch(epoll_fd, EPOLL_CTL_ADD, listen_fd, EPOLLIN, NULL);
    if (r == 0)
        r = echo_announce(listen_fd);
    if (r == 0)
        r = serve(epoll_fd, listen_fd, context);
    (void)fprintf(stderr, "tls_epoll: %s\n", strerror(-r)); /* failing anyway */
    return EXIT_FAILURE;
}
