/* sys_bsd.c: what FreeBSD, OpenBSD and NetBSD have beside sys_posix.c.
 *
 * Sources: accept4(2), pipe2(2), socket(2), recvmmsg(2) of each; ppoll(2) of FreeBSD
 * 11, OpenBSD 5.4 and NetBSD 10, which are the oldest for this file. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "message.h"
#include "testing.h"

/* The backend kqueue wakes loops itself; the bell of a queue is a pipe. */
int fdmux__posix_bell(void)
{
    return -ENOSYS;
}

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

/* NetBSD has no option that tells the protocol. tcp(4): only TCP knows this one. */
bool fdmux__sys_is_tcp(fdmux_fd fd)
{
    int value = 0;
    socklen_t size = sizeof value;

    return getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0;
}

/* ---- datagrams ------------------------------------------------------------------- */

#if defined(__FreeBSD__)
/* recvmmsg(2): on FreeBSD it is a loop around recvmsg(2), as our own without it. */
int fdmux__sys_receive_many(fdmux_fd fd, struct fdmux__message *messages,
                            unsigned count)
{
    (void)fd, (void)messages, (void)count;
    return -ENOSYS;
}

int fdmux__sys_send_many(fdmux_fd fd, struct fdmux__message *messages, unsigned count)
{
    (void)fd, (void)messages, (void)count;
    return -ENOSYS;
}
#else
_Static_assert(sizeof(struct fdmux__message) == sizeof(struct mmsghdr) &&
                   offsetof(struct fdmux__message, length) ==
                       offsetof(struct mmsghdr, msg_len),
               "struct fdmux__message is laid out as struct mmsghdr");

int fdmux__sys_receive_many(fdmux_fd fd, struct fdmux__message *messages,
                            unsigned count)
{
    int fault = fdmux__fault(FDMUX_CALL_RECVMMSG);

    return fault != 0 ? fault
                      : fdmux__posix_result(recvmmsg(fd, (struct mmsghdr *)messages,
                                                     count, MSG_DONTWAIT, NULL));
}

int fdmux__sys_send_many(fdmux_fd fd, struct fdmux__message *messages, unsigned count)
{
    int fault = fdmux__fault(FDMUX_CALL_SENDMMSG);

    return fault != 0
               ? fault
               : fdmux__posix_result(sendmmsg(fd, (struct mmsghdr *)messages, count,
                                              MSG_DONTWAIT | MSG_NOSIGNAL));
}
#endif

uint64_t fdmux__sys_socket_drops(fdmux_fd fd)
{
    (void)fd;
    return 0;
}
