/* control.c: what travels beside a datagram, in terms of struct fdmux_datagram. */
#include "datagram.h"

#include <string.h>

#define ECN_MASK 3 /* the lower bits of the traffic class, RFC 3168 section 5 */

uint32_t fdmux__control_read(struct fdmux__message *message, union fdmux__local *local,
                             struct fdmux_datagram *datagram)
{
    struct fdmux__aside aside = {.local = local};

    fdmux__sys_read_aside(message, &aside);
    if (aside.has_local) {
        datagram->local = local;
        datagram->local_size = local->inet.sin_family == AF_INET ? sizeof local->inet
                                                                 : sizeof local->inet6;
        datagram->interface_index = aside.interface_index;
    }
    if (aside.has_traffic_class) {
        datagram->ecn = aside.traffic_class & ECN_MASK;
        datagram->flags |= FDMUX_DATAGRAM_HAS_ECN;
    }
    return aside.segment_size;
}

void fdmux__control_write(struct fdmux__message *message, unsigned char *control,
                          const struct fdmux_datagram *datagram, uint16_t segment_size)
{
    union fdmux__local local = {{0}};
    struct fdmux__aside aside = {.segment_size = segment_size};

    if (datagram->local != NULL) {
        memcpy(&local, datagram->local, datagram->local_size);
        aside.local = &local;
    }
    fdmux__sys_write_aside(message, control, &aside);
}
