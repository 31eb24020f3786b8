/* message_windows.c: message.h on WSARecvFrom and WSASendTo.
 *
 * A datagram at a time, and nothing beside it: whoever asks for our own address, the
 * traffic class, reports or segments gets -EOPNOTSUPP. */
#if defined(_WIN32)

#include "message.h"

#include <errno.h>

#include "testing.h"

/* An answer of ICMP that nobody listens there is WSAECONNRESET here. */
static int last_error(void)
{
    int error = WSAGetLastError();

    return error == WSAECONNRESET ? -ECONNREFUSED : -fdmux__errno_from_winsock(error);
}

static WSABUF buffer_of(const struct fdmux__message *message)
{
    return (WSABUF){.len = (ULONG)message->part->size, .buf = message->part->base};
}

int fdmux__sys_receive_one(fdmux_fd fd, struct fdmux__message *message)
{
    WSABUF buffer = buffer_of(message);
    DWORD length = 0;
    DWORD flags = 0;
    int fault = fdmux__fault(FDMUX_CALL_RECV);

    if (fault != 0)
        return fault;
    if (WSARecvFrom(fd, &buffer, 1, &length, &flags, message->address,
                    message->address == NULL ? NULL : &message->address_size, NULL,
                    NULL) == SOCKET_ERROR) {
        if (WSAGetLastError() != WSAEMSGSIZE)
            return last_error();
        message->is_truncated = true;
        length = buffer.len;
    }
    message->length = length;
    return (int)length;
}

int fdmux__sys_send_one(fdmux_fd fd, const struct fdmux__message *message)
{
    WSABUF buffer = buffer_of(message);
    DWORD sent = 0;
    int fault = fdmux__fault(FDMUX_CALL_SEND);

    if (fault != 0)
        return fault;
    if (WSASendTo(fd, &buffer, 1, &sent, 0, message->address, message->address_size,
                  NULL, NULL) == SOCKET_ERROR)
        return last_error();
    return (int)sent;
}

void fdmux__sys_read_aside(struct fdmux__message *message, struct fdmux__aside *aside)
{
    (void)message, (void)aside;
}

/* The system chooses the address, and cuts nothing. */
void fdmux__sys_write_aside(struct fdmux__message *message, void *control,
                            const struct fdmux__aside *aside)
{
    (void)message, (void)control, (void)aside;
}

int fdmux__sys_want_local(fdmux_fd fd, int family)
{
    (void)fd, (void)family;
    return -EOPNOTSUPP;
}

int fdmux__sys_want_traffic_class(fdmux_fd fd, int family)
{
    (void)fd, (void)family;
    return -EOPNOTSUPP;
}

int fdmux__sys_want_reports(fdmux_fd fd, int family)
{
    (void)fd, (void)family;
    return -EOPNOTSUPP;
}

int fdmux__sys_check_segments(fdmux_fd fd, uint16_t segment_size)
{
    (void)fd, (void)segment_size;
    return -EOPNOTSUPP;
}

int fdmux__sys_want_joined(fdmux_fd fd)
{
    (void)fd;
    return -EOPNOTSUPP;
}

int fdmux__sys_take_report(fdmux_fd fd, int *ret_error, void *address,
                           unsigned *address_size)
{
    (void)fd, (void)ret_error, (void)address, (void)address_size;
    return -EAGAIN;
}

uint64_t fdmux__sys_socket_drops(fdmux_fd fd)
{
    (void)fd;
    return 0; /* Windows does not say */
}

#else
typedef int fdmux__no_message_windows; /* ISO C forbids an empty file */
#endif
