/* Sends 64 KiB as datagrams of 1,200 bytes with UDP GSO, in plain C: what the method
 * `send_segments` is compared with. Prints the CPU microseconds of one such send.
 *
 *     datagram_segments SENDS */
#include "datagram_socket.h"
#include "rounds.h"

#include <netinet/udp.h>

enum { LENGTH = 65536, SEGMENT = 1200, SEGMENTS_MAX = 65507 / SEGMENT };

static unsigned char bytes[LENGTH];

struct sender {
    int fd;
    struct sockaddr_in where;
    long send_count;
};

static int send_piece(const struct sender *sender, size_t offset, size_t size)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))];
    struct iovec part = {bytes + offset, size};
    struct msghdr message = {
        .msg_name = (void *)(uintptr_t)&sender->where,
        .msg_namelen = sizeof sender->where,
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof control,
    };
    struct cmsghdr *item = CMSG_FIRSTHDR(&message);
    uint16_t segment = SEGMENT;

    item->cmsg_level = IPPROTO_UDP;
    item->cmsg_type = UDP_SEGMENT;
    item->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(item), &segment, sizeof segment);
    return sendmsg(sender->fd, &message, 0) == (ssize_t)size ? 0 : -errno;
}

static int run_round(void *userdata)
{
    const struct sender *sender = userdata;
    size_t first = (size_t)SEGMENTS_MAX * SEGMENT;
    int64_t start = cpu_ns();

    for (long i = 0; i < sender->send_count; i++) {
        int r = send_piece(sender, 0, first);

        if (r == 0)
            r = send_piece(sender, first, LENGTH - first);
        if (r < 0)
            return r;
    }
    return printf("%.4f\n",
                  (double)(cpu_ns() - start) / 1000 / (double)sender->send_count) < 0
               ? -EIO
               : 0;
}

int main(int argc, char **argv)
{
    struct sender sender = {.send_count =
                                argc == 2 ? read_count(argv[1], 1000000) : -1};
    socklen_t size = sizeof sender.where;
    int sink = datagram_bind();

    sender.fd = datagram_bind();
    if (sender.send_count < 1 || sink < 0 || sender.fd < 0 ||
        getsockname(sink, (struct sockaddr *)&sender.where, &size) < 0) {
        perror("datagram_segments");
        return EXIT_FAILURE;
    }
    return run_rounds(run_round, &sender);
}
