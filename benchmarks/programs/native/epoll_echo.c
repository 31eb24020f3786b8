/* An echo server on bare epoll: the floor. Results of other servers are divided by its
 * own.
 *
 * One thread, level-triggered, one 256 KiB receive buffer for all connections. An event
 * costs one recv and one send. Bytes that the kernel does not take are kept, and the
 * connection is not read until they are sent. Prints its port and serves until it is
 * killed or its parent ends. */
#include "echo_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENT_CAPACITY = 1024 };

struct connection {
    int fd;
    size_t kept_start;
    size_t kept_size;
    unsigned char *kept; /* NULL unless a send was incomplete */
};

static unsigned char receive_buffer[ECHO_BUFFER_SIZE];

static void close_connection(struct connection *connection)
{
    /* Closing the last descriptor also removes it from the epoll set. */
    (void)close(connection->fd); /* a failure would change nothing */
    free(connection->kept);
    free(connection);
}

static int watch(int epoll_fd, int operation, int fd, uint32_t events, void *owner)
{
    struct epoll_event event = {.events = events, .data.ptr = owner};

    return epoll_ctl(epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

static int accept_one(int epoll_fd, int listen_fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int r;

    if (connection == NULL)
        return -ENOMEM;
    connection->fd = echo_accept(listen_fd);
    if (connection->fd < 0) {
        r = connection->fd;
        free(connection);
        return r;
    }
    r = watch(epoll_fd, EPOLL_CTL_ADD, connection->fd, EPOLLIN, connection);
    if (r < 0)
        close_connection(connection);
    return r; /* NOLINT(clang-analyzer-unix.Malloc): the epoll set holds it */
}

static int accept_all(int epoll_fd, int listen_fd)
{
    int r;

    do {
        r = accept_one(epoll_fd, listen_fd);
    } while (r == 0);
    return r == -EAGAIN || r == -ECONNABORTED ? 0 : r;
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

static int echo_once(int epoll_fd, struct connection *connection)
{
    ssize_t received = recv(connection->fd, receive_buffer, sizeof receive_buffer, 0);
    ssize_t sent;

    if (received < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (received == 0)
        return -ECONNRESET; /* the peer has closed */
    sent = send(connection->fd, receive_buffer, (size_t)received, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return -errno;
    if (sent == received)
        return 0;
    if (sent < 0)
        sent = 0;
    return keep_rest(epoll_fd, connection, receive_buffer + sent,
                     (size_t)(received - sent));
}

static int send_kept(int epoll_fd, struct connection *connection)
{
    ssize_t sent = send(connection->fd, connection->kept + connection->kept_start,
                        connection->kept_size - connection->kept_start, MSG_NOSIGNAL);

    if (sent < 0)
        return errno == EAGAIN ? 0 : -errno;
    connection->kept_start += (size_t)sent;
    if (connection->kept_start < connection->kept_size)
        return 0;
    free(connection->kept);
    connection->kept = NULL;
    return watch(epoll_fd, EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
}

static void serve_connection(int epoll_fd, struct connection *connection)
{
    int r = connection->kept != NULL ? send_kept(epoll_fd, connection)
                                     : echo_once(epoll_fd, connection);

    if (r < 0)
        close_connection(connection);
}

static int serve(int epoll_fd, int listen_fd)
{
    struct epoll_event events[EVENT_CAPACITY];

    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENT_CAPACITY, -1);
        int r = 0;

        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count && r == 0; i++) {
            if (events[i].data.ptr == NULL)
                r = accept_all(epoll_fd, listen_fd);
            else
                serve_connection(epoll_fd, events[i].data.ptr);
        }
        if (r < 0)
            return r;
    }
}

int main(void)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listen_fd = echo_listen();
    int r;

    if (epoll_fd < 0 || listen_fd < 0) {
        perror("epoll_echo: cannot listen");
        return EXIT_FAILURE;
    }
    r = watch(epoll_fd, EPOLL_CTL_ADD, listen_fd, EPOLLIN, NULL);
    if (r == 0)
        r = echo_announce(listen_fd);
    if (r == 0)
        r = serve(epoll_fd, listen_fd);
    (void)fprintf(stderr, "epoll_echo: %s\n", strerror(-r)); /* failing anyway */
    return EXIT_FAILURE;
}
