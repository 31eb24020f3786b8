/* The chain benchmark on bare epoll: the floor for every library. */
#include "chain.h"

#include <sys/epoll.h>

enum { EVENT_CAPACITY = 1024 };

static struct chain *chain;
static int epoll_fd;

static int watch(struct chain *all)
{
    chain = all;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        return -errno;
    for (int i = 0; i < chain->pair_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = i};

        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, chain->read_fds[i], &event) < 0)
            return -errno;
    }
    return 0;
}

static int poll_once(void)
{
    static struct epoll_event events[EVENT_CAPACITY];
    int count = epoll_wait(epoll_fd, events, EVENT_CAPACITY, 0);

    for (int i = 0; i < count; i++)
        chain_on_readable(chain, events[i].data.fd);
    return count < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
    return chain_main(argc, argv, &(struct chain_peer){watch, poll_once});
}
