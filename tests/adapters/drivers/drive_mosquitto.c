/* drive_mosquitto.c: each request is a message to a topic that the client subscribed.
 */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/mosquitto.h>
#include <stdio.h>

#define KEEPALIVE 5 /* seconds; libmosquitto takes no less */

struct client {
    struct trial *trial;
    struct mosquitto *mosq;
    struct fdmux_mosquitto *adapter;
    char topic[32];
    int is_timing;
};

static int live_count, topic_count;

static const char *version(void)
{
    static char text[32];
    int major, minor, revision;

    mosquitto_lib_version(&major, &minor, &revision);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, revision);
    return text;
}

/* After the close there is no client: libmosquitto may call back once more. */
static void on_connect(struct mosquitto *mosq, void *userdata, int code)
{
    struct client *client = (struct client *)userdata;

    if (client != NULL && code == 0)
        mosquitto_subscribe(mosq, NULL, client->topic, 0);
}

static void on_subscribe(struct mosquitto *mosq, void *userdata, int id, int qos_count,
                         const int *granted_qos)
{
    struct client *client = (struct client *)userdata;

    (void)mosq, (void)id, (void)qos_count, (void)granted_qos;
    if (client != NULL)
        trial_ready(client->trial);
}

static void on_disconnect(struct mosquitto *mosq, void *userdata, int code)
{
    struct client *client = (struct client *)userdata;

    (void)mosq;
    if (client == NULL)
        return;
    if (client->is_timing && code == MOSQ_ERR_KEEPALIVE)
        trial_timed_out(client->trial);
    else
        trial_lost(client->trial);
}

static void on_message(struct mosquitto *mosq, void *userdata,
                       const struct mosquitto_message *message)
{
    struct client *client = (struct client *)userdata;
    char text[16];
    int number;

    (void)mosq;
    if (client == NULL || message->payloadlen >= (int)sizeof text)
        return;
    memcpy(text, message->payload, (size_t)message->payloadlen);
    text[message->payloadlen] = '\0';
    number = atoi(text);
    snprintf(text, sizeof text, "%d", number);
    trial_answer(client->trial, number,
                 strcmp(message->topic, client->topic) == 0 &&
                     message->payloadlen == (int)strlen(text));
}

static int connect_to(struct client *client, int port)
{
    int r;

    client->mosq = mosquitto_new(NULL, true, client);
    if (client->mosq == NULL)
        return -ENOMEM;
    mosquitto_connect_callback_set(client->mosq, on_connect);
    mosquitto_disconnect_callback_set(client->mosq, on_disconnect);
    mosquitto_subscribe_callback_set(client->mosq, on_subscribe);
    mosquitto_message_callback_set(client->mosq, on_message);
    r = fdmux_mosquitto_attach(client->trial->loop, client->mosq, &client->adapter);
    if (r < 0)
        return r;
    if (mosquitto_connect_async(client->mosq, "127.0.0.1", port, KEEPALIVE) !=
        MOSQ_ERR_SUCCESS)
        return -ECONNREFUSED;
    return fdmux_mosquitto_update(client->adapter);
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);

    if (client == NULL)
        return -ENOMEM;
    if (live_count++ == 0)
        mosquitto_lib_init();
    client->trial = trial;
    snprintf(client->topic, sizeof client->topic, "fdmux/%d", ++topic_count);
    *ret_client = client;
    return connect_to(client, atoi(strchr(trial->address, ':') + 1));
}

static int request(void *userdata, int number)
{
    struct client *client = (struct client *)userdata;
    char text[16];
    int size = snprintf(text, sizeof text, "%d", number);

    return mosquitto_publish(client->mosq, NULL, client->topic, size, text, 0, false) ==
                   MOSQ_ERR_SUCCESS
               ? 0
               : -EIO;
}

static int begin_timeout(void *userdata)
{
    struct client *client = (struct client *)userdata;

    mosquitto_user_data_set(client->mosq, NULL);
    fdmux_mosquitto_destroy(client->adapter);
    client->is_timing = 1;
    return connect_to(client, client->trial->silent_port);
}

static int reopen(void *userdata)
{
    struct client *client = (struct client *)userdata;

    if (mosquitto_reconnect_async(client->mosq) != MOSQ_ERR_SUCCESS)
        return -ECONNREFUSED;
    return fdmux_mosquitto_update(client->adapter);
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    mosquitto_user_data_set(client->mosq, NULL);
    if (client->adapter != NULL)
        fdmux_mosquitto_destroy(client->adapter);
    else
        mosquitto_destroy(client->mosq); /* attaching failed */
    free(client);
    if (--live_count == 0)
        mosquitto_lib_cleanup();
}

const struct library library_mosquitto = {
    .name = "mosquitto",
    .version = version,
    .timeout_ms = (KEEPALIVE - 1) * 1000, /* it counts whole seconds */
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .reopen = reopen,
    .close = close_client,
    .live_count = &live_count,
    .needs_wake = 1,
};
