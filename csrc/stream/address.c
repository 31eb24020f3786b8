/* address.c: makes sockets from addresses: TCP over IPv4 and IPv6, and Unix.
 *
 * Passes them to fdmux_stream_listen or fdmux_stream_connect. Addresses are numeric,
 * since resolving a name blocks. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "../core/sockaddr.h"
#include "../platform/sys.h"

static int parse(const struct fdmux_stream_address *address,
                 union fdmux__sockaddr *ret_address, socklen_t *ret_size)
{
    int r = fdmux__options_check(address, sizeof *address);

    if (r < 0)
        return r;
    if (address->backlog < 0 || address->reserved != 0 ||
        (address->flags & ~(uint32_t)FDMUX_STREAM_REUSE_PORT) != 0 ||
        (address->host == NULL) == (address->path == NULL))
        return -EINVAL;
    if (address->path != NULL)
        return fdmux__sockaddr_from_path(address->path, strlen(address->path),
                                         ret_address, ret_size);
    return fdmux__sockaddr_parse(address->host, address->port, ret_address, ret_size);
}

/* Parse the address and make a socket for it. Returns 0 or -errno. */
static int open_socket(const struct fdmux_stream_address *address,
                       const struct fdmux_stream_options *options,
                       union fdmux__sockaddr *ret_address, socklen_t *ret_size,
                       fdmux_fd *ret_fd)
{
    int r = parse(address, ret_address, ret_size);

    if (r == 0)
        r = fdmux__stream_check_options(options);
    if (r == 0 && (options->flags & FDMUX_STREAM_BORROW) != 0)
        r = -EINVAL; /* nobody would close this socket */
    return r < 0
               ? r
               : fdmux__sys_socket(ret_address->generic.sa_family, SOCK_STREAM, ret_fd);
}

static int bind_and_listen(fdmux_fd fd, const struct fdmux_stream_address *address,
                           const union fdmux__sockaddr *where, socklen_t size)
{
    int r = 0;

    if (address->host != NULL)
        r = fdmux__sys_reuse_address(fd);
    if (r == 0 && (address->flags & FDMUX_STREAM_REUSE_PORT) != 0)
        r = fdmux__sys_reuse_port(fd);
    if (r == 0)
        r = fdmux__sys_bind(fd, &where->generic, (unsigned)size);
    if (r == 0)
        r = fdmux__sys_listen(fd, address->backlog == 0 ? 128 : address->backlog);
    return r;
}

int fdmux_stream_listen_at(struct fdmux_loop *loop,
                           const struct fdmux_stream_address *address,
                           const struct fdmux_stream_options *options,
                           uint64_t *ret_stream)
{
    union fdmux__sockaddr where;
    socklen_t size;
    fdmux_fd fd;
    int r = open_socket(address, options, &where, &size, &fd);

    if (r < 0)
        return r;
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
    union fdmux__sockaddr where;
    socklen_t size;
    fdmux_fd fd;
    int r = open_socket(address, options, &where, &size, &fd);

    if (r < 0)
        return r;
    r = fdmux__sys_connect(fd, &where.generic, (unsigned)size);
    /* connect(2): after EINTR the attempt goes on, as after EINPROGRESS. */
    if (r == 0 || r == -EINPROGRESS || r == -EINTR)
        r = fdmux_stream_connect(loop, fd, options, ret_stream);
    if (r < 0)
        (void)fdmux__sys_close(fd); /* close(2): released in any case */
    return r;
}
