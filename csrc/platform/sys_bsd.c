/* sys_bsd.c: what FreeBSD, OpenBSD, NetBSD and macOS share, beside sys_posix.c. */
#include "sys.h" /* first: <netinet/tcp.h> of OpenBSD takes its types from others */

#include <errno.h>
#include <netinet/tcp.h>

#include "message.h"

/* The backend kqueue wakes loops itself; the bell of a queue is a pipe. */
int fdmux__posix_bell(void)
{
    return -ENOSYS;
}

/* Not all have an option that tells the protocol. tcp(4): only TCP knows this one. */
bool fdmux__sys_is_tcp(fdmux_fd fd)
{
    int value = 0;
    socklen_t size = sizeof value;

    return getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0;
}

uint64_t fdmux__sys_socket_drops(fdmux_fd fd)
{
    (void)fd;
    return 0;
}
