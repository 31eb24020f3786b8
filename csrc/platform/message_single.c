/* message_single.c: for systems that send and receive one datagram in a call.
 *
 * macOS and Windows have no other call. recvmmsg(2) of FreeBSD is a loop around
 * recvmsg(2), as the core's own is. */
#include <errno.h>

#include "message.h"

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
