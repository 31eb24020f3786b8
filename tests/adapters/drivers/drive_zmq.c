/* drive_zmq.c: each request is a message from a DEALER that the peer sends back. A
 * monitor, a second socket in the loop, reports the connection. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/zmq.h>
#include <stdio.h>

struct client {
    struct trial *trial;
    void *context, *dealer, *monitor;
    struct fdmux_zmq *messages, *events;
    int is_timing;
};

static int live_count;

static const char *version(void)
{
    static char text[32];
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}

static void on_message(void *socket, int events, void *userdata)
{
    struct client *client = (struct client *)userdata;
    char text[16], again[16];
    int size = zmq_recv(socket, text, sizeof text - 1, ZMQ_DONTWAIT);
    int number;

    (void)events;
    if (size < 0)
        return;
    text[size] = '\0';
    number = atoi(text);
    snprintf(again, sizeof again, "%d", number);
    trial_answer(client->trial, number, strcmp(text, again) == 0);
}

/* The first frame has the event, the second its address (zmq_socket_monitor(3)). */
static int next_event(void *socket)
{
    unsigned char frame[256];
    uint16_t event;

    if (zmq_recv(socket, frame, sizeof frame, ZMQ_DONTWAIT) < (int)sizeof event)
        return -1;
    memcpy(&event, frame, sizeof event);
    (void)zmq_recv(socket, frame, sizeof frame, ZMQ_DONTWAIT);
    return event;
}

static void on_event(void *socket, int events, void *userdata)
{
    struct client *client = (struct client *)userdata;
    int event = next_event(socket);

    (void)events;
    if (client->is_timing) {
        if (event == ZMQ_EVENT_DISCONNECTED ||
            event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
            trial_timed_out(client->trial);
    } else if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        trial_ready(client->trial);
    } else if (event == ZMQ_EVENT_DISCONNECTED) {
        trial_lost(client->trial);
    }
}

static int set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

static void close_sockets(struct client *client)
{
    fdmux_zmq_detach(client->messages);
    fdmux_zmq_detach(client->events);
    client->messages = client->events = NULL;
    /* Without this ZeroMQ's thread may wait for ever to report to a closed monitor. */
    zmq_socket_monitor(client->dealer, NULL, 0);
    zmq_close(client->dealer);
    zmq_close(client->monitor);
}

/* A name is free some time after its socket was closed, so each is used once. */
static int monitor_count;

static int open_sockets(struct client *client, const char *address)
{
    struct fdmux_loop *loop = client->trial->loop;
    char name[64];
    int r;

    snprintf(name, sizeof name, "inproc://monitor-%d", ++monitor_count);
    client->dealer = zmq_socket(client->context, ZMQ_DEALER);
    client->monitor = zmq_socket(client->context, ZMQ_PAIR);
    if (set(client->dealer, ZMQ_LINGER, 0) != 0 ||
        set(client->monitor, ZMQ_LINGER, 0) != 0 ||
        set(client->dealer, ZMQ_RECONNECT_IVL, 10) != 0 ||
        set(client->dealer, ZMQ_HANDSHAKE_IVL, TIMEOUT_MS) != 0 ||
        zmq_socket_monitor(client->dealer, name, ZMQ_EVENT_ALL) != 0 ||
        zmq_connect(client->monitor, name) != 0)
        return -EIO;
    r = fdmux_zmq_attach(loop, client->monitor, ZMQ_POLLIN, on_event, client,
                         &client->events);
    if (r == 0)
        r = fdmux_zmq_attach(loop, client->dealer, ZMQ_POLLIN, on_message, client,
                             &client->messages);
    if (r == 0 && zmq_connect(client->dealer, address) != 0)
        r = -EIO;
    return r;
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);

    if (client == NULL)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    client->context = zmq_ctx_new();
    *ret_client = client;
    return open_sockets(client, trial->address);
}

static int request(void *userdata, int number)
{
    char text[16];
    int size = snprintf(text, sizeof text, "%d", number);

    return zmq_send(((struct client *)userdata)->dealer, text, (size_t)size,
                    ZMQ_DONTWAIT) == size
               ? 0
               : -EIO;
}

static int begin_timeout(void *userdata)
{
    struct client *client = (struct client *)userdata;
    char address[64];

    close_sockets(client);
    client->is_timing = 1;
    snprintf(address, sizeof address, "tcp://%s", client->trial->silent);
    return open_sockets(client, address);
}

/* ZeroMQ connects by itself; what it has not sent yet would be sent twice. */
static int reopen(void *userdata)
{
    struct client *client = (struct client *)userdata;

    close_sockets(client);
    return open_sockets(client, client->trial->address);
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    close_sockets(client);
    zmq_ctx_term(client->context);
    free(client);
    live_count--;
}

const struct library library_zmq = {
    .name = "zmq",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .reopen = reopen,
    .close = close_client,
    .live_count = &live_count,
    .needs_wake = 1,
};
