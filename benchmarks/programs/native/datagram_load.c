/* Closed-loop load for an echo server of datagrams: every client sends a datagram,
 * waits for its echo, compares each byte, and sends the next.
 *
 *     datagram_load PORT CLIENTS SIZE WARMUP MESSAGES SECONDS
 *
 * Talks as load.c does. A wrong or extra datagram, or none for ten seconds, ends it
 * with status 1: on loopback none is lost, as each client has one under way. */
#include "datagram_socket.h"
#include "pattern.h"
#include "rounds.h"

#include <stdbool.h>
#include <sys/epoll.h>

enum { EVENT_CAPACITY = 256, SIZE_MAX_BYTES = 2048, STALL_MS = 10 * 1000 };

struct client {
    int fd;
    size_t index;
    uint64_t number; /* of the datagram under way */
    bool is_waiting;
};

struct load {
    int epoll_fd;
    struct client *clients;
    size_t client_count;
    size_t size;
    unsigned char *pattern;
    uint64_t left;
    uint64_t echoed;
    size_t waiting;
};

static int complain(const struct client *client, const char *what)
{
    (void)fprintf(stderr, "datagram_load: client %zu, datagram %llu: %s\n",
                  client->index, (unsigned long long)client->number,
                  what); /* the exit status reports it, too */
    return -EPROTO;
}

static int send_next(struct load *load, struct client *client)
{
    const unsigned char *message =
        pattern_message(load->pattern, client->index, ++client->number);

    load->left--;
    load->waiting++;
    client->is_waiting = true;
    if (send(client->fd, message, load->size, 0) != (ssize_t)load->size)
        return complain(client, strerror(errno));
    return 0;
}

static int take_echo(struct load *load, struct client *client)
{
    unsigned char got[SIZE_MAX_BYTES];
    ssize_t size = recv(client->fd, got, sizeof got, MSG_DONTWAIT);

    if (size < 0)
        return errno == EAGAIN ? 0 : complain(client, strerror(errno));
    if (!client->is_waiting || (size_t)size != load->size ||
        memcmp(got, pattern_message(load->pattern, client->index, client->number),
               load->size) != 0)
        return complain(client, "the echo differs from the datagram");
    client->is_waiting = false;
    load->waiting--;
    load->echoed++;
    return load->left > 0 ? send_next(load, client) : 0;
}

static int run(struct load *load, uint64_t count, int64_t seconds)
{
    int64_t deadline_ns = now_ns() + seconds * 1000000000;
    int r = 0;

    load->left = count;
    load->echoed = 0;
    for (size_t i = 0; r == 0 && i < load->client_count && load->left > 0; i++)
        r = send_next(load, &load->clients[i]);
    while (r == 0 && load->waiting > 0) {
        struct epoll_event events[EVENT_CAPACITY];
        int found = epoll_wait(load->epoll_fd, events, EVENT_CAPACITY, STALL_MS);

        if (found <= 0 && errno != EINTR)
            return found == 0 ? -ETIMEDOUT : -errno;
        for (int i = 0; i < found && r == 0; i++)
            r = take_echo(load, events[i].data.ptr);
        if (now_ns() >= deadline_ns)
            load->left = 0;
    }
    return r;
}

static int open_client(struct load *load, struct client *client,
                       const struct sockaddr_in *address)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};

    client->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 ||
        connect(client->fd, (const struct sockaddr *)address, sizeof *address) < 0 ||
        epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        return -errno;
    return 0;
}

static int open_all(struct load *load, in_port_t port)
{
    struct sockaddr_in address = echo_loopback(port);
    int r = 0;

    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load->clients = calloc(load->client_count, sizeof *load->clients);
    load->pattern = pattern_create(load->size);
    if (load->epoll_fd < 0 || load->clients == NULL || load->pattern == NULL)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < load->client_count; i++) {
        load->clients[i].index = i;
        r = open_client(load, &load->clients[i], &address);
    }
    return r;
}

/* The messages of one line from the runner. */
static int answer(struct load *load, uint64_t count, int64_t seconds)
{
    char line[16];
    int64_t start;
    int r;

    if (puts("ready") < 0 || fflush(stdout) != 0 ||
        fgets(line, sizeof line, stdin) == NULL)
        return -EIO;
    start = now_ns();
    r = run(load, count, seconds);
    if (r < 0)
        return r;
    if (printf("done %llu %lld\n", (unsigned long long)load->echoed,
               (long long)(now_ns() - start)) < 0 ||
        fflush(stdout) != 0)
        return -EIO;
    while (fgets(line, sizeof line, stdin) != NULL)
        continue; /* until standard input ends */
    return 0;
}

int main(int argc, char **argv)
{
    struct load load = {0};
    long numbers[6] = {0};
    int r = argc == 7 ? 0 : -EINVAL;

    for (int i = 0; r == 0 && i < 6; i++) {
        numbers[i] = read_count(argv[i + 1], 1000000000);
        if (numbers[i] < 0)
            r = -EINVAL;
    }
    if (r == 0 && (numbers[1] < 1 || numbers[2] > SIZE_MAX_BYTES))
        r = -EINVAL;
    load.client_count = (size_t)numbers[1];
    load.size = (size_t)numbers[2];
    if (r == 0)
        r = open_all(&load, (in_port_t)numbers[0]);
    if (r == 0)
        r = run(&load, (uint64_t)numbers[3], numbers[5]);
    if (r == 0)
        r = answer(&load, (uint64_t)numbers[4], numbers[5]);
    if (r < 0)
        (void)fprintf(stderr, "datagram_load: %s\n", strerror(-r)); /* failing anyway */
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
