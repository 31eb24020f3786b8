/* sys_macos.c: what macOS has beside sys_posix.c and sys_bsd.c.
 *
 * It has none of accept4(2), ppoll(2), SOCK_CLOEXEC and MSG_NOSIGNAL, and pipe2(2) only
 * since macOS 27, so the flags are set after the call: a thread that runs a program
 * between the two may let it inherit the descriptor. */
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "message.h"
#include "testing.h"

int fdmux__sys_pipe(fdmux_fd ret_fds[2])
{
    int fds[2];
    int r = fdmux__fault(FDMUX_CALL_PIPE);

    if (r == 0)
        r = fdmux__posix_result(pipe(fds));
    if (r < 0)
        return r;
    fds[0] = fdmux__posix_set_flags(fds[0]);
    fds[1] = fdmux__posix_set_flags(fds[1]);
    if (fds[0] >= 0 && fds[1] >= 0) {
        ret_fds[0] = fds[0];
        ret_fds[1] = fds[1];
        return 0;
    }
    r = fds[0] < 0 ? fds[0] : fds[1];
    if (fds[0] >= 0)
        (void)close(fds[0]); /* close(2) releases it whatever it returns */
    if (fds[1] >= 0)
        (void)close(fds[1]);
    return r;
}

int fdmux__sys_poll(fdmux__pollfd *fds, size_t count, int64_t timeout_ns)
{
    int fault = fdmux__fault(FDMUX_CALL_WAIT);
    int64_t ms = timeout_ns < 0 ? -1 : timeout_ns / FDMUX__NS_PER_MS;

    if (fault != 0)
        return fault;
    if (timeout_ns > 0 && timeout_ns % FDMUX__NS_PER_MS != 0)
        ms++; /* never early */
    return fdmux__posix_result(
        poll(fds, (nfds_t)count, ms > INT_MAX ? INT_MAX : (int)ms));
}

bool fdmux__sys_poll_is_exact(void)
{
    return false;
}

/* ---- sockets --------------------------------------------------------------------- */

static int keep(int fd, fdmux_fd *ret_fd)
{
    fd = fdmux__posix_set_flags(fd);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

int fdmux__sys_socket(int family, int type, fdmux_fd *ret_fd)
{
    int fault = fdmux__fault(FDMUX_CALL_SOCKET);

    return fault != 0 ? fault
                      : keep(fdmux__posix_result(socket(family, type, 0)), ret_fd);
}

int fdmux__sys_accept(fdmux_fd fd, fdmux_fd *ret_fd, void *peer, unsigned *peer_size)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int r = fdmux__fault(FDMUX_CALL_ACCEPT);

    if (r == 0)
        r = keep(fdmux__posix_result(accept(fd, (struct sockaddr *)&address, &size)),
                 ret_fd);
    if (r < 0)
        return r;
    *peer_size = fdmux__posix_internet_size(&address, size, *peer_size);
    memcpy(peer, &address, *peer_size);
    return 0;
}
