/* message_posix.c: message.h on recvmsg(2) and sendmsg(2).
 *
 * The Unixes differ in the options that they have, so this file asks for the options,
 * and never for the system. Sources: ip(7), ipv6(7), udp(7) of Linux, ip(4) of macOS
 * and the BSDs, RFC 3542 for IPV6_PKTINFO and IPV6_TCLASS. */
#define _GNU_SOURCE
/* ip6(4) of macOS: for IPV6_RECVPKTINFO and IPV6_TCLASS. */
#if defined(__APPLE__)
#define __APPLE_USE_RFC_3542 /* NOLINT: the name is Apple's */
#endif
#include "message.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdalign.h>
#include <string.h>

#include "testing.h"

#if defined(__linux__)
#include <linux/errqueue.h>
#include <time.h>
#endif

#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0
#endif

static int receive(fdmux_fd fd, struct msghdr *header, int flags)
{
    int fault = fdmux__fault(FDMUX_CALL_RECV);

    return fault != 0 ? fault
                      : fdmux__posix_result(recvmsg(fd, header, flags | MSG_DONTWAIT));
}

int fdmux__sys_receive_one(fdmux_fd fd, struct fdmux__message *message)
{
    int r = receive(fd, &message->header, 0);

    if (r >= 0)
        message->length = (unsigned)r;
    return r;
}

int fdmux__sys_send_one(fdmux_fd fd, const struct fdmux__message *message)
{
    int fault = fdmux__fault(FDMUX_CALL_SEND);

    return fault != 0 ? fault
                      : fdmux__posix_result(
                            sendmsg(fd, &message->header, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/* ---- reading --------------------------------------------------------------------- */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare" /* musl: the macro mixes signs */
#pragma GCC diagnostic ignored "-Wsign-conversion"

static struct cmsghdr *next_item(struct msghdr *header, struct cmsghdr *item)
{
    return CMSG_NXTHDR(header, item);
}

#pragma GCC diagnostic pop

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

static void set_inet(struct fdmux__aside *aside, struct in_addr address)
{
    memset(aside->local, 0, sizeof *aside->local);
    aside->local->inet.sin_family = AF_INET;
    aside->local->inet.sin_addr = address;
    aside->has_local = true;
}

#if defined(IP_PKTINFO)
/* ipi_spec_dst is our own address, also for what was sent to a group. NetBSD has only
 * the address that it was sent to. */
static void read_inet(struct cmsghdr *item, struct fdmux__aside *aside)
{
    struct in_pktinfo info;

    memcpy(&info, CMSG_DATA(item), sizeof info);
#if defined(__NetBSD__)
    set_inet(aside, info.ipi_addr);
#else
    set_inet(aside, info.ipi_spec_dst);
#endif
    aside->interface_index = (uint32_t)info.ipi_ifindex;
}
#else
/* ip(4): FreeBSD and OpenBSD tell the address alone. */
static void read_inet(struct cmsghdr *item, struct fdmux__aside *aside)
{
    struct in_addr address;

    memcpy(&address, CMSG_DATA(item), sizeof address);
    set_inet(aside, address);
}
#endif

static void read_inet6(struct cmsghdr *item, struct fdmux__aside *aside)
{
    struct in6_pktinfo info;

    memcpy(&info, CMSG_DATA(item), sizeof info);
    memset(aside->local, 0, sizeof *aside->local);
    aside->local->inet6.sin6_family = AF_INET6;
    aside->local->inet6.sin6_addr = info.ipi6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
        aside->local->inet6.sin6_scope_id = (uint32_t)info.ipi6_ifindex;
    aside->has_local = true;
    aside->interface_index = (uint32_t)info.ipi6_ifindex;
}

#if defined(IP_PKTINFO)
#define LOCAL_TYPE IP_PKTINFO
#else
#define LOCAL_TYPE IP_RECVDSTADDR
#endif

/* Linux sends it with the type IP_TOS, the others with that of the option. */
#if defined(__linux__)
#define TOS_TYPE IP_TOS
#elif defined(IP_RECVTOS)
#define TOS_TYPE IP_RECVTOS
#endif

static void read_item(struct cmsghdr *item, struct fdmux__aside *aside)
{
    int level = item->cmsg_level, type = item->cmsg_type;
    bool is_class = level == IPPROTO_IPV6 && type == IPV6_TCLASS;

#if defined(TOS_TYPE)
    is_class = is_class || (level == IPPROTO_IP && type == TOS_TYPE);
#endif
    if (level == IPPROTO_IP && type == LOCAL_TYPE)
        read_inet(item, aside);
    else if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO)
        read_inet6(item, aside);
    else if (is_class)
        aside->traffic_class = (uint8_t)number_in(item);
#if defined(UDP_GRO)
    else if (level == IPPROTO_UDP && type == UDP_GRO)
        aside->segment_size = number_in(item);
#endif
    aside->has_traffic_class = aside->has_traffic_class || is_class;
}

void fdmux__sys_read_aside(struct fdmux__message *message, struct fdmux__aside *aside)
{
    for (struct cmsghdr *item = CMSG_FIRSTHDR(&message->header); item != NULL;
         item = next_item(&message->header, item))
        read_item(item, aside);
}

/* ---- writing --------------------------------------------------------------------- */

/* The types of these fields differ: size_t, socklen_t or unsigned int. */
#define AS_TYPE_OF(field, value) ((__typeof__(field))(value))

static void append(struct msghdr *header, int level, int type, const void *data,
                   size_t size)
{
    unsigned char *end = (unsigned char *)header->msg_control + header->msg_controllen;
    struct cmsghdr item = {.cmsg_level = level, .cmsg_type = type};

    item.cmsg_len = AS_TYPE_OF(item.cmsg_len, CMSG_LEN(size));
    memcpy(end, &item, sizeof item);
    memcpy(end + CMSG_LEN(0), data, size);
    header->msg_controllen =
        AS_TYPE_OF(header->msg_controllen, header->msg_controllen + CMSG_SPACE(size));
}

/* OpenBSD names the option for both ways alike. */
#if !defined(IP_PKTINFO) && !defined(IP_SENDSRCADDR)
#define IP_SENDSRCADDR IP_RECVDSTADDR
#endif

/* A group cannot be the sender: then the kernel chooses. */
static void append_local(struct msghdr *header, const union fdmux__local *local)
{
    if (local->inet.sin_family == AF_INET) {
        if (IN_MULTICAST(ntohl(local->inet.sin_addr.s_addr)))
            return;
#if defined(IP_PKTINFO) && defined(__NetBSD__)
        struct in_pktinfo info = {.ipi_addr = local->inet.sin_addr};

        append(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
#elif defined(IP_PKTINFO)
        struct in_pktinfo info = {.ipi_spec_dst = local->inet.sin_addr};

        append(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
#else
        append(header, IPPROTO_IP, IP_SENDSRCADDR, &local->inet.sin_addr,
               sizeof local->inet.sin_addr);
#endif
    } else if (!IN6_IS_ADDR_MULTICAST(&local->inet6.sin6_addr)) {
        struct in6_pktinfo info = {.ipi6_addr = local->inet6.sin6_addr,
                                   .ipi6_ifindex = local->inet6.sin6_scope_id};

        append(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

void fdmux__sys_write_aside(struct fdmux__message *message, void *control,
                            const struct fdmux__aside *aside)
{
    struct msghdr *header = &message->header;

    header->msg_control = control;
    header->msg_controllen = 0;
    if (aside->local != NULL)
        append_local(header, aside->local);
#if defined(UDP_SEGMENT)
    if (aside->segment_size != 0) {
        uint16_t segment_size = (uint16_t)aside->segment_size;

        append(header, IPPROTO_UDP, UDP_SEGMENT, &segment_size, sizeof segment_size);
    }
#endif
    if (header->msg_controllen == 0)
        header->msg_control = NULL;
}

/* ---- options --------------------------------------------------------------------- */

#if defined(IP_RECVTOS) || defined(IP_RECVERR)
/* Also for IPv4 on a socket of IPv6, which takes both; the control messages of
 * IPv4 are not there if it does not. */
static int set_both(fdmux_fd fd, int family, int inet, int inet6)
{
    int r = fdmux__sys_set_option(fd, IPPROTO_IP, inet, 1);

    if (family == AF_INET)
        return r;
    return fdmux__sys_set_option(fd, IPPROTO_IPV6, inet6, 1);
}
#endif

/* This one tells addresses of IPv4 as those of IPv6 that stand for them. */
int fdmux__sys_want_local(fdmux_fd fd, int family)
{
    if (family != AF_INET)
        return fdmux__sys_set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
#if defined(IP_RECVPKTINFO)
    return fdmux__sys_set_option(fd, IPPROTO_IP, IP_RECVPKTINFO, 1);
#else
    return fdmux__sys_set_option(fd, IPPROTO_IP, LOCAL_TYPE, 1);
#endif
}

int fdmux__sys_want_traffic_class(fdmux_fd fd, int family)
{
#if defined(IP_RECVTOS)
    return set_both(fd, family, IP_RECVTOS, IPV6_RECVTCLASS);
#else
    return family == AF_INET
               ? -EOPNOTSUPP
               : fdmux__sys_set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
#endif
}

int fdmux__sys_want_reports(fdmux_fd fd, int family)
{
#if defined(IP_RECVERR)
    return set_both(fd, family, IP_RECVERR, IPV6_RECVERR);
#else
    (void)fd, (void)family;
    return 0;
#endif
}

int fdmux__sys_check_segments(fdmux_fd fd, uint16_t segment_size)
{
#if defined(UDP_SEGMENT)
    return fdmux__sys_set_option(fd, IPPROTO_UDP, UDP_SEGMENT, segment_size);
#else
    (void)fd, (void)segment_size;
    return -EOPNOTSUPP;
#endif
}

int fdmux__sys_want_joined(fdmux_fd fd)
{
#if defined(UDP_GRO)
    return fdmux__sys_set_option(fd, IPPROTO_UDP, UDP_GRO, 1);
#else
    (void)fd;
    return -EOPNOTSUPP;
#endif
}

/* ---- reports --------------------------------------------------------------------- */

#if defined(IP_RECVERR)
/* Room for a report and the address of whoever has sent it. */
#define REPORT_CONTROL_SIZE 512

static int error_in(struct msghdr *header)
{
    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL;
         item = next_item(header, item)) {
        struct sock_extended_err report;

        if ((item->cmsg_level != IPPROTO_IP || item->cmsg_type != IP_RECVERR) &&
            (item->cmsg_level != IPPROTO_IPV6 || item->cmsg_type != IPV6_RECVERR))
            continue;
        memcpy(&report, CMSG_DATA(item), sizeof report);
        /* Others are time stamps and notices of MSG_ZEROCOPY. */
        if (report.ee_origin == SO_EE_ORIGIN_LOCAL ||
            report.ee_origin == SO_EE_ORIGIN_ICMP ||
            report.ee_origin == SO_EE_ORIGIN_ICMP6)
            return (int)report.ee_errno;
    }
    return 0;
}

int fdmux__sys_take_report(fdmux_fd fd, int *ret_error, void *address,
                           unsigned *address_size)
{
    alignas(16) unsigned char control[REPORT_CONTROL_SIZE] = {0};
    struct iovec part = {.iov_len = 0}; /* the datagram itself is not asked for */
    struct msghdr header = {
        .msg_name = address,
        .msg_namelen = *address_size,
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof control,
    };
    int r = receive(fd, &header, MSG_ERRQUEUE);

    if (r < 0)
        return r;
    *address_size = header.msg_namelen;
    *ret_error = error_in(&header);
    return 0;
}
#else
int fdmux__sys_take_report(fdmux_fd fd, int *ret_error, void *address,
                           unsigned *address_size)
{
    (void)fd, (void)ret_error, (void)address, (void)address_size;
    return -EAGAIN; /* the next receive returns the error */
}
#endif
