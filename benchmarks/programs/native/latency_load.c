/* Open-loop load for an echo server: requests are sent when they are due, whether or
 * not earlier ones were answered, and the latency of each answer counts from when its
 * request was due.
 *
 *     latency_load PORT SCHEDULE CONNECTIONS SIZE WARMUP COUNT INTERVAL_US
 *
 * SCHEDULE is `bursts`: all connections send at once, every INTERVAL; or `open`: one
 * request at a time, each on the next connection, with random gaps of INTERVAL on
 * average (exponential, so arrivals are independent; the same gaps in every run).
 *
 * A server that stalls delays the answers but not the requests, so all requests that
 * become due during the stall show it. After a schedule of WARMUP requests and one of
 * COUNT, prints `p10 p50 p99 late` in nanoseconds for the second one: `late` is the
 * 99th percentile of how late this program itself sent. A wrong, missing or extra byte,
 * a closed connection, a request that the socket does not take, or 10 s without an
 * answer end it with status 1. An alarm(2) ends it in any case. */
#include "echo_socket.h"
#include "pattern.h"
#include "rounds.h"
#include "schedule.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/time.h>

enum {
    EVENT_CAPACITY = 256,
    CONNECTIONS_MAX = 10000,
    MESSAGE_SIZE_MAX = 64 * 1024,
    REQUESTS_MAX = 1000000,
    INTERVAL_US_MAX = 1000 * 1000,
    SECONDS_MAX = 30, /* of one schedule; the warm-up is another */
    STALL_SECONDS = 10,
    ALARM_SECONDS = 120,
    SPIN_NS = 50 * 1000, /* before a request is due: a sleep may end this much late */
};

struct connection {
    int fd;
    size_t index;
    uint64_t sent_count;     /* requests; the number of the next one */
    uint64_t answered_count; /* complete answers */
    size_t received;         /* bytes of the current answer */
};

struct load {
    int epoll_fd;
    struct connection *connections;
    struct request *requests;
    size_t connection_count;
    size_t message_size;
    size_t request_count; /* of the current schedule */
    size_t sent_count;
    size_t answered_count;
    int64_t answered_ns; /* time of the last answer, or start of the run */
    unsigned char *pattern;
};

static unsigned char receive_buffer[ECHO_BUFFER_SIZE];

static int complain(const struct connection *connection, const char *what)
{
    (void)fprintf(stderr, "latency_load: connection %zu, answer %llu: %s\n",
                  connection->index, (unsigned long long)connection->answered_count,
                  what); /* the exit status reports it, too */
    return -EPROTO;
}

/* Request `n` goes to connection `n % connection_count`, so each connection gets every
 * connection_count-th request. */
static int send_request(struct load *load)
{
    size_t number = load->sent_count++;
    struct connection *connection = &load->connections[number % load->connection_count];
    const unsigned char *message =
        pattern_message(load->pattern, connection->index, connection->sent_count++);
    ssize_t sent = send(connection->fd, message, load->message_size, MSG_NOSIGNAL);

    load->requests[number].late_ns = now_ns() - load->requests[number].due_ns;
    if (sent < 0)
        return complain(connection, strerror(errno));
    if ((size_t)sent < load->message_size)
        return complain(connection, "the socket is full: the server does not follow");
    return 0;
}

static void note_answer(struct load *load, struct connection *connection)
{
    size_t number =
        connection->answered_count * load->connection_count + connection->index;

    connection->received = 0;
    connection->answered_count++;
    load->answered_count++;
    load->answered_ns = now_ns();
    load->requests[number].latency_ns =
        load->answered_ns - load->requests[number].due_ns;
}

static int check_answers(struct load *load, struct connection *connection, size_t size)
{
    const unsigned char *bytes = receive_buffer;

    while (size > 0) {
        const unsigned char *message = pattern_message(load->pattern, connection->index,
                                                       connection->answered_count);
        size_t part = load->message_size - connection->received;

        if (connection->answered_count == connection->sent_count)
            return complain(connection, "more bytes came back than were sent");
        if (part > size)
            part = size;
        if (memcmp(bytes, message + connection->received, part) != 0)
            return complain(connection, "the echo differs from the message");
        bytes += part;
        size -= part;
        connection->received += part;
        if (connection->received == load->message_size)
            note_answer(load, connection);
    }
    return 0;
}

static int receive_answers(struct load *load, struct connection *connection)
{
    ssize_t received =
        recv(connection->fd, receive_buffer, sizeof receive_buffer, MSG_DONTWAIT);

    if (received < 0)
        return errno == EAGAIN ? 0 : complain(connection, strerror(errno));
    if (received == 0)
        return complain(connection, "closed by the server");
    return check_answers(load, connection, (size_t)received);
}

static int serve_batch(struct load *load)
{
    struct epoll_event events[EVENT_CAPACITY];
    int count = epoll_wait(load->epoll_fd, events, EVENT_CAPACITY, 0);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        int r = receive_answers(load, events[i].data.ptr);

        if (r < 0)
            return r;
    }
    return 0;
}

/* Sleep until shortly before the next request is due. Do not sleep while an answer is
 * missing: waking up takes time, which would count for the server. */
static int await_due(const struct load *load)
{
    struct timespec pause;
    int64_t left_ns;

    if (load->answered_count < load->sent_count)
        return 0;
    left_ns = load->requests[load->sent_count].due_ns - now_ns() - SPIN_NS;
    if (left_ns <= 0)
        return 0;
    pause.tv_sec = left_ns / 1000000000;
    pause.tv_nsec = left_ns % 1000000000;
    return nanosleep(&pause, NULL) < 0 && errno != EINTR ? -errno : 0;
}

static int send_due(struct load *load)
{
    int r = 0;

    while (r == 0 && load->sent_count < load->request_count &&
           load->requests[load->sent_count].due_ns <= now_ns())
        r = send_request(load);
    return r;
}

/* After the last answer there must be nothing left to read. */
static int check_silence(const struct load *load)
{
    for (size_t i = 0; i < load->connection_count; i++) {
        const struct connection *connection = &load->connections[i];

        if (recv(connection->fd, receive_buffer, 1, MSG_DONTWAIT) >= 0)
            return complain(connection, "surplus bytes or an early end");
        if (errno != EAGAIN)
            return complain(connection, strerror(errno));
    }
    return 0;
}

/* Send one message and receive its echo, blocking: the connection is then accepted and
 * warm. */
static int await_accept(const struct load *load, const struct connection *connection)
{
    const struct timeval timeout = {.tv_sec = STALL_SECONDS};
    int fd = connection->fd;
    ssize_t size = (ssize_t)load->message_size;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) < 0)
        return -errno;
    if (send(fd, load->pattern, load->message_size, MSG_NOSIGNAL) != size)
        return complain(connection, "the socket does not take a message");
    if (recv(fd, receive_buffer, load->message_size, MSG_WAITALL) != size)
        return complain(connection, "the first message does not come back");
    if (memcmp(receive_buffer, load->pattern, load->message_size) != 0)
        return complain(connection, "the echo differs from the message");
    return 0;
}

static int connect_one(struct load *load, struct connection *connection,
                       const struct sockaddr_in *address)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    connection->fd = fd;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return -errno;
    r = echo_set_nodelay(fd);
    if (r == 0)
        r = await_accept(load, connection);
    if (r < 0)
        return r;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int connect_all(struct load *load, in_port_t port)
{
    struct sockaddr_in address = echo_loopback(port);
    int r = 0;

    for (size_t i = 0; i < load->connection_count && r == 0; i++) {
        load->connections[i].index = i;
        r = connect_one(load, &load->connections[i], &address);
    }
    return r;
}

static int allocate(struct load *load)
{
    load->connections = calloc(load->connection_count, sizeof *load->connections);
    load->pattern = pattern_create(load->message_size);
    if (load->connections == NULL || load->pattern == NULL)
        return -ENOMEM;
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return load->epoll_fd < 0 ? -errno : 0;
}

/* Make a new schedule of `count` requests; all earlier ones were answered. */
static int plan(struct load *load, const char *schedule, int64_t interval_ns,
                size_t count)
{
    int64_t end_ns;

    free(load->requests);
    load->requests = calloc(count, sizeof *load->requests);
    if (load->requests == NULL)
        return -ENOMEM;
    load->request_count = count;
    load->sent_count = 0;
    load->answered_count = 0;
    for (size_t i = 0; i < load->connection_count; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): -errno is not 0 */
        load->connections[i].sent_count = 0;
        load->connections[i].answered_count = 0;
    }
    if (strcmp(schedule, "bursts") == 0)
        end_ns =
            schedule_bursts(load->requests, count, load->connection_count, interval_ns);
    else if (strcmp(schedule, "open") == 0)
        end_ns = schedule_open(load->requests, count, interval_ns);
    else
        return -EINVAL;
    return end_ns > SECONDS_MAX * INT64_C(1000000000) ? -E2BIG : 0;
}

static int run_schedule(struct load *load)
{
    int64_t start_ns = now_ns();

    load->answered_ns = start_ns;
    for (size_t i = 0; i < load->request_count; i++)
        load->requests[i].due_ns += start_ns;
    while (load->answered_count < load->request_count) {
        int r = await_due(load);

        if (r == 0)
            r = send_due(load);
        if (r == 0)
            r = serve_batch(load);
        if (r < 0)
            return r;
        if (load->answered_count < load->sent_count &&
            now_ns() - load->answered_ns > STALL_SECONDS * INT64_C(1000000000))
            return -ETIMEDOUT;
    }
    return 0;
}

static int report(const struct load *load)
{
    struct schedule_figures figures =
        schedule_figures(load->requests, load->request_count);

    return printf("%lld %lld %lld %lld\n", (long long)figures.p10_ns,
                  (long long)figures.p50_ns, (long long)figures.p99_ns,
                  (long long)figures.late_ns) < 0 ||
                   fflush(stdout) != 0
               ? -EIO
               : 0;
}

static size_t count_of(const char *text, long max)
{
    long count = read_count(text, max);

    if (count >= 0)
        return (size_t)count;
    (void)fprintf(stderr, "latency_load: not a count up to %ld: %s\n", max, text);
    exit(2); /* wrong usage */
}

static int prepare(struct load *load, in_port_t port)
{
    int r;

    if (load->connection_count == 0 || load->message_size == 0)
        return -EINVAL;
    /* Sleeps end 50 us late by default (prctl(2)). */
    if (prctl(PR_SET_TIMERSLACK, 1) < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return -errno;
    r = allocate(load);
    return r == 0 ? connect_all(load, port) : r;
}

/* Warm up, measure, and check that nothing more comes. */
static int run(struct load *load, char **argv)
{
    int64_t interval_ns = (int64_t)count_of(argv[7], INTERVAL_US_MAX) * 1000;
    size_t counts[] = {count_of(argv[5], REQUESTS_MAX),
                       count_of(argv[6], REQUESTS_MAX)};
    int r = 0;

    for (size_t i = 0; i < 2 && r == 0; i++) {
        r = counts[i] == 0 ? -EINVAL : plan(load, argv[2], interval_ns, counts[i]);
        if (r == 0)
            r = run_schedule(load);
    }
    if (r == 0)
        r = check_silence(load);
    return r == 0 ? report(load) : r;
}

int main(int argc, char **argv)
{
    struct load load = {0};
    int r;

    if (argc != 8) {
        (void)fputs("usage: latency_load PORT bursts|open CONNECTIONS SIZE WARMUP "
                    "COUNT INTERVAL_US\n",
                    stderr); /* failing anyway */
        return 2;
    }
    /* SIGALRM ends the process in any case. */
    (void)alarm(ALARM_SECONDS); /* no older alarm */
    load.connection_count = count_of(argv[3], CONNECTIONS_MAX);
    load.message_size = count_of(argv[4], MESSAGE_SIZE_MAX);

    r = prepare(&load, (in_port_t)count_of(argv[1], UINT16_MAX));
    if (r == 0)
        r = run(&load, argv);
    free(load.connections);
    free(load.requests);
    free(load.pattern);
    return exit_status("latency_load", r);
}
