/* address.c: makes sockets from addresses: TCP over IPv4 and IPv6, and Unix.
 *
 * Passes them to fdmux_stream_listen or fdmux_stream_connect. Addresses are numeric,
 * since resolving a name blocks. */
#define _GNU_SOURCE
#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../platform/sys.h"

union any_address {
    struct sockaddr generic;
    struct sockaddr_in inet;
    struct sockaddr_in6 inet6;
    struct sockaddr_un local;
};

static int parse_local(const char *path, union any_address *ret_address,
                       socklen_t *ret_size)
{
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof ret_address->local.sun_path)
        return -EINVAL;
    ret_address->local.sun_family = AF_UNIX;
    memcpy(ret_address->local.sun_path, path, length + 1);
    *ret_size = sizeof ret_address->local;
    return 0;
}

static int parse_inet(const char *host, uint16_t port, union any_address *ret_address,
                      socklen_t *ret_size)
{
    if (inet_pton(AF_INET, host, &ret_address->inet.sin_addr) == 1) {
        ret_address->inet.sin_family = AF_INET;
        ret_address->inet.sin_port = htons(port);
        *ret_size = sizeof ret_address->inet;
        return 0;
    }
    memset(ret_address, 0, sizeof *ret_address);
    if (inet_pton(AF_INET6, host, &ret_address->inet6.sin6_addr) == 1) {
        ret_address->inet6.sin6_family = AF_INET6;
        ret_address->inet6.sin6_port = htons(port);
        *ret_size = sizeof ret_address->inet6;
        return 0;
    }
    return -EINVAL;
}

static int parse(const struct fdmux_stream_address *address,
                 union any_address *ret_address, socklen_t *ret_size)
{
    int r = fdmux__options_check(address, sizeof *address);

    if (r < 0)
        return r;
    if (address->backlog < 0 || address->reserved != 0 ||
        (address->flags & ~(uint32_t)FDMUX_STREAM_REUSE_PORT) != 0 ||
        (address->host == NULL) == (address->path == NULL))
        return -EINVAL;
    memset(ret_address, 0, sizeof *ret_address);
    return address->path != NULL
               ? parse_local(address->path, ret_address, ret_size)
               : parse_inet(address->host, address->port, ret_address, ret_size);
}

/* Parse the address and make a socket for it. Returns the descriptor or -errno. */
static int open_socket(const struct fdmux_stream_address *address,
                       const struct fdmux_stream_options *options,
                       union any_address *ret_address, socklen_t *ret_size)
{
    int r = parse(address, ret_address, ret_size);

    if (r == 0)
        r = fdmux__stream_check_options(options);
    if (r == 0 && (options->flags & FDMUX_STREAM_BORROW) != 0)
        r = -EINVAL; /* nobody would close this socket */
    return r < 0 ? r : fdmux__sys_socket(ret_address->generic.sa_family);
}

static int bind_and_listen(int fd, const struct fdmux_stream_address *address,
                           const union any_address *where, socklen_t size)
{
    int r = 0;

    if (address->host != NULL)
        r = fdmux__sys_set_option(fd, SO_REUSEADDR);
    if (r == 0 && (address->flags & FDMUX_STREAM_REUSE_PORT) != 0)
        r = fdmux__sys_set_option(fd, SO_REUSEPORT);
    if (r == 0)
        r = fdmux__sys_bind(fd, &where->generic, size);
    if (r == 0)
        r = fdmux__sys_listen(fd, address->backlog == 0 ? 128 : address->backlog);
    return r;
}

int fdmux_stream_listen_at(struct fdmux_loop *loop,
                           const struct fdmux_stream_address *address,
                           const struct fdmux_stream_options *options,
                           uint64_t *ret_stream)
{
    union any_address where;
    socklen_t size;
    int fd = open_socket(address, options, &where, &size);
    int r;

    if (fd < 0)
        return fd;
    r = bind_and_listen(fd, address, &where, size);
    if (r == 0)
        r = fdmux_stream_listen(loop, fd, options, ret_stream);
    if (r < 0)
        (void)fdmux__sys_close(fd); /* close(2): released in any case */
    return r;
}

int fdmux_stream_connect_to(struct fdmux_loop *loop,
                            const struct fdmux_stream_address *address,
                            const struct fdmux_stream_options *options,
                            uint64_t *ret_stream)
{
    union any_address where;
    socklen_t size;
    int fd = open_socket(address, options, &where, &size);
    int r;

    if (fd < 0)
        return fd;
    r = fdmux__sys_connect(fd, &where.generic, size);
    /* connect(2): after EINTR the attempt goes on, as after EINPROGRESS. */
    if (r == 0 || r == -EINPROGRESS || r == -EINTR)
        r = fdmux_stream_connect(loop, fd, options, ret_stream);
    if (r < 0)
        (void)fdmux__sys_close(fd); /* close(2): released in any case */
    return r;
}
