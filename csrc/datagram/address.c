/* address.c: makes sockets from addresses: UDP over IPv4 and IPv6, and Unix.
 *
 * Addresses are numeric, since resolving a name blocks. */
#include "datagram.h"

#include <errno.h>
#include <string.h>

static int parse(const struct fdmux_datagram_address *address,
                 union fdmux__sockaddr *ret_address, socklen_t *ret_size)
{
    size_t length;
    int r = fdmux__options_check(address, sizeof *address);

    if (r < 0)
        return r;
    if ((address->flags & ~(uint32_t)FDMUX_DATAGRAM_REUSE_PORT) != 0 ||
        (address->host == NULL) == (address->path == NULL))
        return -EINVAL;
    if (address->host != NULL)
        return fdmux__sockaddr_parse(address->host, address->port, ret_address,
                                     ret_size);
    length = address->path_length != 0 ? address->path_length : strlen(address->path);
    return fdmux__sockaddr_from_path(address->path, length, ret_address, ret_size);
}

static int check(const struct fdmux_datagram_options *options)
{
    int r = fdmux__endpoint_check_options(options);

    if (r == 0 && (options->flags & FDMUX_DATAGRAM_BORROW) != 0)
        r = -EINVAL; /* nobody would close this socket */
    return r;
}

static int bind_to(fdmux_fd fd, const struct fdmux_datagram_address *address,
                   int family)
{
    union fdmux__sockaddr where;
    socklen_t size;
    int r = parse(address, &where, &size);

    if (r == 0 && where.generic.sa_family != family)
        r = -EINVAL;
    if (r == 0 && (address->flags & FDMUX_DATAGRAM_REUSE_PORT) != 0)
        r = fdmux__sys_reuse_port(fd);
    return r < 0 ? r : fdmux__sys_bind(fd, &where.generic, (unsigned)size);
}

/* Make a socket, bind it to `own` and connect it to `peer`, one of which may be NULL.
 * Returns 0 or -errno. */
static int open_socket(const struct fdmux_datagram_address *peer,
                       const struct fdmux_datagram_address *own, fdmux_fd *ret_fd)
{
    union fdmux__sockaddr where;
    socklen_t size;
    int r = parse(peer != NULL ? peer : own, &where, &size);
    int family = r < 0 ? 0 : where.generic.sa_family;
    fdmux_fd fd = FDMUX_NO_FD;

    if (r == 0)
        r = fdmux__sys_socket(family, SOCK_DGRAM, &fd);
    if (r < 0)
        return r;
    if (own != NULL)
        r = bind_to(fd, own, family);
    if (r == 0 && peer != NULL)
        r = fdmux__sys_connect(fd, &where.generic, (unsigned)size);
    if (r < 0)
        (void)fdmux__sys_close(fd); /* close(2): released in any case */
    else
        *ret_fd = fd;
    return r;
}

static int open_endpoint(struct fdmux_loop *loop,
                         const struct fdmux_datagram_address *peer,
                         const struct fdmux_datagram_address *own,
                         const struct fdmux_datagram_options *options,
                         uint64_t *ret_endpoint)
{
    int r = check(options);
    fdmux_fd fd = FDMUX_NO_FD;

    if (r == 0)
        r = open_socket(peer, own, &fd);
    if (r < 0)
        return r;
    r = fdmux_datagram_add(loop, fd, options, ret_endpoint);
    if (r < 0)
        (void)fdmux__sys_close(fd); /* close(2): released in any case */
    return r;
}

int fdmux_datagram_bind(struct fdmux_loop *loop,
                        const struct fdmux_datagram_address *address,
                        const struct fdmux_datagram_options *options,
                        uint64_t *ret_endpoint)
{
    return address == NULL ? -EFAULT
                           : open_endpoint(loop, NULL, address, options, ret_endpoint);
}

int fdmux_datagram_connect(struct fdmux_loop *loop,
                           const struct fdmux_datagram_address *peer,
                           const struct fdmux_datagram_address *own,
                           const struct fdmux_datagram_options *options,
                           uint64_t *ret_endpoint)
{
    return peer == NULL ? -EFAULT
                        : open_endpoint(loop, peer, own, options, ret_endpoint);
}
