/* message.h: datagrams as the system sends and receives them; the second half of sys.h.
 *
 * struct fdmux__message is the system's own structure, so that many can be given to the
 * kernel at once; it comes from the system's header, with these inline functions:
 *
 * - void fdmux__message_set(struct fdmux__message *message, struct fdmux__part *part,
 *   const void *address, unsigned address_size): one part, to or from an address, which
 *   may be NULL, without anything beside;
 * - void fdmux__message_reset(message, unsigned address_size, void *control,
 *   unsigned control_size): what a receive has changed, before the next one; `control`
 * is memory for what travels beside the datagram, aligned to 16 bytes;
 * - unsigned fdmux__message_length(const message), of what was received;
 * - unsigned fdmux__message_address_size(const message): 0 for none;
 * - bool fdmux__message_is_truncated(const message);
 * - bool fdmux__message_has_aside(const message): did or does anything travel beside?
 */
#ifndef FDMUX_MESSAGE_H
#define FDMUX_MESSAGE_H

#include "sys.h"

union fdmux__local {
    struct sockaddr_in inet;
    struct sockaddr_in6 inet6;
};

/* What travels beside a datagram. */
struct fdmux__aside {
    union fdmux__local *local; /* our own address: read into this; NULL to send none */
    bool has_local;
    bool has_traffic_class;
    uint8_t traffic_class;
    uint32_t interface_index;
    uint32_t segment_size; /* of datagrams that the kernel joined, or is to cut */
};

/* Receive or send at most `count`, without blocking. Returns how many; -errno, if there
 * was not one; -ENOSYS where the system has no such call. */
int fdmux__sys_receive_many(fdmux_fd fd, struct fdmux__message *messages,
                            unsigned count);
int fdmux__sys_send_many(fdmux_fd fd, struct fdmux__message *messages, unsigned count);
/* One datagram. Returns >= 0 or -errno. */
int fdmux__sys_receive_one(fdmux_fd fd, struct fdmux__message *message);
int fdmux__sys_send_one(fdmux_fd fd, const struct fdmux__message *message);

/* Read what came beside a datagram. `aside` has zeros, but for `local`. */
void fdmux__sys_read_aside(struct fdmux__message *message, struct fdmux__aside *aside);
/* Let it travel beside the datagram. `control` is memory, aligned to 16 bytes, as large
 * as that of fdmux__message_reset. */
void fdmux__sys_write_aside(struct fdmux__message *message, void *control,
                            const struct fdmux__aside *aside);

/* Ask the kernel to tell beside each datagram what our own address was, and the traffic
 * class. Return 0 or -errno. */
int fdmux__sys_want_local(fdmux_fd fd, int family);
int fdmux__sys_want_traffic_class(fdmux_fd fd, int family);
/* Let it keep reports about datagrams that were sent. Without such a queue, the next
 * receive or send returns the error. */
int fdmux__sys_want_reports(fdmux_fd fd, int family);
/* Can it cut one large datagram into segments? -EOPNOTSUPP where it cannot. */
int fdmux__sys_check_segments(fdmux_fd fd, uint16_t segment_size);
/* Let it join datagrams; -EOPNOTSUPP where it cannot. */
int fdmux__sys_want_joined(fdmux_fd fd);

/* Take one report. Writes the error, 0 for a notice of another kind, and where that
 * datagram was sent; *address_size is the room before and the size after. Returns 0;
 * -EAGAIN, if there is none. */
int fdmux__sys_take_report(fdmux_fd fd, int *ret_error, void *address,
                           unsigned *address_size);

/* How many datagrams the kernel has dropped because the buffer of the socket was full;
 * 0 where it does not say. */
uint64_t fdmux__sys_socket_drops(fdmux_fd fd);

#endif
