/* sys_posix_2024.c: what Linux and the BSDs have beside sys_posix.c, and macOS lacks.
 *
 * POSIX.1-2024 has these calls: they make descriptors that are closed on exec and do
 * not block, and wait to the nanosecond. Sources: pipe2(2), ppoll(2), socket(2) and
 * accept4(2) of Linux, FreeBSD 11, OpenBSD 5.7 and NetBSD 10, which are the oldest for
 * this file. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"
#include "testing.h"

int fdmux__sys_pipe(fdmux_fd ret_fds[2])
{
    int fault = fdmux__fault(FDMUX_CALL_PIPE);

    return fault != 0 ? fault
                      : fdmux__posix_result(pipe2(ret_fds, O_CLOEXEC | O_NONBLOCK));
}

int fdmux__sys_poll(fdmux__pollfd *fds, size_t count, int64_t timeout_ns)
{
    struct timespec timeout = fdmux__posix_timespec(timeout_ns < 0 ? 0 : timeout_ns);
    int fault = fdmux__fault(FDMUX_CALL_WAIT);

    if (fault != 0)
        return fault;
    return fdmux__posix_result(
        ppoll(fds, (nfds_t)count, timeout_ns < 0 ? NULL : &timeout, NULL));
}

bool fdmux__sys_poll_is_exact(void)
{
    return true;
}

/* ---- sockets --------------------------------------------------------------------- */

int fdmux__sys_socket(int family, int type, fdmux_fd *ret_fd)
{
    int r = fdmux__fault(FDMUX_CALL_SOCKET);

    if (r == 0)
        r = fdmux__posix_result(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (r >= 0)
        *ret_fd = r;
    return r < 0 ? r : 0;
}

int fdmux__sys_accept(fdmux_fd fd, fdmux_fd *ret_fd, void *peer, unsigned *peer_size)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int r = fdmux__fault(FDMUX_CALL_ACCEPT);

    if (r == 0)
        r = fdmux__posix_result(accept4(fd, (struct sockaddr *)&address, &size,
                                        SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (r < 0)
        return r;
    *peer_size = fdmux__posix_internet_size(&address, size, *peer_size);
    memcpy(peer, &address, *peer_size);
    *ret_fd = r;
    return 0;
}
