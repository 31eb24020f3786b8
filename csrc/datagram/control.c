/* control.c: the control messages of a datagram: what the kernel tells beside its
 * bytes, and what it is told.
 *
 * Sources: ip(7), ipv6(7), udp(7), RFC 3542 for IPV6_PKTINFO and IPV6_TCLASS. */
#define _GNU_SOURCE
#include "datagram.h"

#include <netinet/udp.h>
#include <string.h>

#define ECN_MASK 3 /* the lower bits of the traffic class, RFC 3168 section 5 */

/* ---- receiving ----------------------------------------------------------------- */

/* A number of one, two or four bytes: which one depends on the option and the kernel.
 */
static uint32_t number_in(struct cmsghdr *item)
{
    size_t size = item->cmsg_len - CMSG_LEN(0);
    uint8_t byte = 0;
    uint16_t half = 0;
    uint32_t word = 0;

    if (size >= sizeof word) {
        memcpy(&word, CMSG_DATA(item), sizeof word);
        return word;
    }
    if (size >= sizeof half) {
        memcpy(&half, CMSG_DATA(item), sizeof half);
        return half;
    }
    memcpy(&byte, CMSG_DATA(item), size);
    return byte;
}

/* ipi_spec_dst is our own address, also for what was sent to a group. */
static void read_inet(struct cmsghdr *item, union fdmux__local *local,
                      struct fdmux_datagram *datagram)
{
    struct in_pktinfo info;

    memcpy(&info, CMSG_DATA(item), sizeof info);
    memset(local, 0, sizeof *local);
    local->inet.sin_family = AF_INET;
    local->inet.sin_addr = info.ipi_spec_dst;
    datagram->local = local;
    datagram->local_size = sizeof local->inet;
    datagram->interface_index = (uint32_t)info.ipi_ifindex;
}

static void read_inet6(struct cmsghdr *item, union fdmux__local *local,
                       struct fdmux_datagram *datagram)
{
    struct in6_pktinfo info;

    memcpy(&info, CMSG_DATA(item), sizeof info);
    memset(local, 0, sizeof *local);
    local->inet6.sin6_family = AF_INET6;
    local->inet6.sin6_addr = info.ipi6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
        local->inet6.sin6_scope_id = (uint32_t)info.ipi6_ifindex;
    datagram->local = local;
    datagram->local_size = sizeof local->inet6;
    datagram->interface_index = (uint32_t)info.ipi6_ifindex;
}

static void read_traffic_class(struct cmsghdr *item, struct fdmux_datagram *datagram)
{
    datagram->ecn = (uint8_t)(number_in(item) & ECN_MASK);
    datagram->flags |= FDMUX_DATAGRAM_HAS_ECN;
}

uint32_t fdmux__control_read(struct msghdr *header, union fdmux__local *local,
                             struct fdmux_datagram *datagram)
{
    uint32_t joined_size = 0;

    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL;
         item = CMSG_NXTHDR(header, item)) {
        int level = item->cmsg_level, type = item->cmsg_type;

        if (level == IPPROTO_IP && type == IP_PKTINFO)
            read_inet(item, local, datagram);
        else if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO)
            read_inet6(item, local, datagram);
        else if ((level == IPPROTO_IP && type == IP_TOS) ||
                 (level == IPPROTO_IPV6 && type == IPV6_TCLASS))
            read_traffic_class(item, datagram);
#if defined(UDP_GRO)
        else if (level == IPPROTO_UDP && type == UDP_GRO)
            joined_size = number_in(item);
#endif
    }
    return joined_size;
}

/* ---- sending ------------------------------------------------------------------- */

static void append(struct msghdr *header, int level, int type, const void *data,
                   size_t size)
{
    unsigned char *end = (unsigned char *)header->msg_control + header->msg_controllen;
    struct cmsghdr item = {.cmsg_level = level, .cmsg_type = type};

    item.cmsg_len = CMSG_LEN(size);
    memcpy(end, &item, sizeof item);
    memcpy(end + CMSG_LEN(0), data, size);
    header->msg_controllen += CMSG_SPACE(size);
}

/* A group cannot be the sender: then the kernel chooses. */
static void append_local(struct msghdr *header, const struct fdmux_datagram *datagram)
{
    union fdmux__local local = {{0}};

    memcpy(&local, datagram->local, datagram->local_size);
    if (local.inet.sin_family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = local.inet.sin_addr};

        append(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (!IN6_IS_ADDR_MULTICAST(&local.inet6.sin6_addr)) {
        struct in6_pktinfo info = {.ipi6_addr = local.inet6.sin6_addr,
                                   .ipi6_ifindex = local.inet6.sin6_scope_id};

        append(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

void fdmux__control_write(struct msghdr *header, unsigned char *control,
                          const struct fdmux_datagram *datagram, uint16_t segment_size)
{
    header->msg_control = control;
    header->msg_controllen = 0;
    if (datagram->local != NULL)
        append_local(header, datagram);
#if defined(UDP_SEGMENT)
    if (segment_size != 0)
        append(header, IPPROTO_UDP, UDP_SEGMENT, &segment_size, sizeof segment_size);
#endif
    if (header->msg_controllen == 0)
        header->msg_control = NULL;
}
