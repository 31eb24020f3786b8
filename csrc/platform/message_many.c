/* message_many.c: many datagrams in one call, on Linux, OpenBSD and NetBSD.
 *
 * Sources: recvmmsg(2) and sendmmsg(2) of each. */
#define _GNU_SOURCE
#include <stddef.h>

#include "message.h"
#include "testing.h"

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
