/* An echo server of datagrams on recvmmsg(2) and sendmmsg(2): the floor of the row
 * `datagrams`.
 *
 * One thread, one socket, batches of 64, poll(2) to wait. Prints its port and serves
 * until it is killed or its parent ends. */
#include "datagram_socket.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, SIZE_MAX_BYTES = 2048 };

static unsigned char buffers[BATCH][SIZE_MAX_BYTES];
static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static struct sockaddr_in addresses[BATCH];

/* Returns how many messages were received, or -errno. */
static int receive_batch(int fd)
{
    int count;

    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i], sizeof buffers[i]};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &addresses[i],
            .msg_namelen = sizeof addresses[i],
            .msg_iov = &parts[i],
            .msg_iovlen = 1,
        };
    }
    count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    return count < 0 ? -errno : count;
}

static int send_batch(int fd, int count)
{
    int sent = 0;

    for (int i = 0; i < count; i++)
        parts[i].iov_len = messages[i].msg_len;
    while (sent < count) {
        int r = sendmmsg(fd, messages + sent, (unsigned)(count - sent), 0);

        if (r < 0)
            return -errno;
        sent += r;
    }
    return 0;
}

static int serve(int fd)
{
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int r = poll(&ready, 1, -1) < 0 ? -errno : receive_batch(fd);

        if (r > 0)
            r = send_batch(fd, r);
        if (r < 0 && r != -EAGAIN && r != -EINTR)
            return r;
    }
}

int main(void)
{
    int fd = datagram_bind();
    int r = fd < 0 ? fd : echo_announce(fd);

    if (r == 0)
        r = serve(fd);
    (void)fprintf(stderr, "datagram_echo: %s\n", strerror(-r)); /* failing anyway */
    return EXIT_FAILURE;
}
