/* drive_sdbus.c: each request is a call of Echo, which the same connection answers. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/sdbus.h>
#include <stdio.h>

#define INTERFACE "org.fdmux.Test"
#define LOCAL "org.freedesktop.DBus.Local"

struct client {
    struct trial *trial;
    sd_bus *bus;
    struct fdmux_sdbus *sdbus;
    int is_closed;
    int reference_count; /* one for each call, and one of the trial */
};

struct request {
    struct client *client;
    int number; /* -1: of begin_timeout */
};

static int live_count;

/* The library does not tell its version; its package does, when this is compiled. */
static const char *version(void)
{
    return SDBUS_VERSION;
}

static void unref(struct client *client)
{
    if (--client->reference_count > 0)
        return;
    free(client);
    live_count--;
}

/* The other side: sends the number back. */
static int on_call(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    int number;

    (void)userdata, (void)error;
    if (sd_bus_message_is_method_call(message, INTERFACE, "Ignore") > 0)
        return 1; /* without a reply */
    if (sd_bus_message_is_method_call(message, INTERFACE, "Echo") <= 0 ||
        sd_bus_message_read(message, "i", &number) < 0)
        return 0;
    return sd_bus_reply_method_return(message, "i", number);
}

static int on_connected(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    (void)message, (void)error;
    trial_ready(((struct client *)userdata)->trial);
    return 0;
}

static void on_lost(sd_bus *bus, int error, void *userdata)
{
    (void)bus, (void)error;
    trial_lost(((struct client *)userdata)->trial);
}

static int on_reply(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    struct request *request = (struct request *)userdata;
    struct trial *trial = request->client->trial;
    int number = -1;

    (void)error;
    if (request->client->is_closed)
        return 0;
    if (!sd_bus_message_is_method_error(message, NULL)) {
        (void)sd_bus_message_read(message, "i", &number);
        trial_answer(trial, request->number, number == request->number);
    } else if (request->number < 0 && sd_bus_message_get_errno(message) == ETIMEDOUT) {
        trial_timed_out(trial);
    } else {
        trial_failed(trial, request->number);
    }
    return 0;
}

static void on_call_freed(void *userdata)
{
    unref(((struct request *)userdata)->client);
    free(userdata);
}

static int start(struct client *client, const char *address)
{
    int r = sd_bus_set_address(client->bus, address);

    if (r >= 0)
        r = sd_bus_set_bus_client(client->bus, 1);
    if (r >= 0)
        r = sd_bus_set_connected_signal(client->bus, 1);
    if (r >= 0)
        r = sd_bus_match_signal(client->bus, NULL, LOCAL, "/org/freedesktop/DBus/Local",
                                LOCAL, "Connected", on_connected, client);
    if (r >= 0)
        r = sd_bus_add_object(client->bus, NULL, "/fdmux", on_call, client);
    return r < 0 ? r : sd_bus_start(client->bus);
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);
    int r;

    if (client == NULL)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    client->reference_count = 1;
    *ret_client = client;
    r = sd_bus_new(&client->bus);
    if (r >= 0)
        r = start(client, trial->address);
    return r < 0 ? r
                 : fdmux_sdbus_attach(trial->loop, client->bus, on_lost, client,
                                      &client->sdbus);
}

static int call(struct client *client, const char *method, int number,
                uint64_t timeout_us)
{
    struct request *request = (struct request *)malloc(sizeof *request);
    sd_bus_message *message = NULL;
    sd_bus_slot *slot = NULL;
    const char *name;
    int r = sd_bus_get_unique_name(client->bus, &name);

    if (request == NULL)
        return -ENOMEM;
    *request = (struct request){client, number};
    if (r >= 0)
        r = sd_bus_message_new_method_call(client->bus, &message, name, "/fdmux",
                                           INTERFACE, method);
    if (r >= 0)
        r = sd_bus_message_append(message, "i", number);
    if (r >= 0)
        r = sd_bus_call_async(client->bus, &slot, message, on_reply, request,
                              timeout_us);
    sd_bus_message_unref(message);
    if (r < 0) {
        free(request);
        return r;
    }
    client->reference_count++;
    sd_bus_slot_set_destroy_callback(slot, on_call_freed);
    sd_bus_slot_set_floating(slot, 1); /* the bus frees it after the reply */
    sd_bus_slot_unref(slot);
    return 0;
}

static int request(void *userdata, int number)
{
    return call((struct client *)userdata, "Echo", number, 0);
}

static int begin_timeout(void *userdata)
{
    return call((struct client *)userdata, "Ignore", -1, TIMEOUT_MS * 1000);
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    client->is_closed = 1;
    fdmux_sdbus_detach(client->sdbus);
    sd_bus_close(client->bus);
    sd_bus_unref(client->bus);
    unref(client);
}

const struct library library_sdbus = {
    .name = "sdbus",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .close = close_client,
    .live_count = &live_count,
    .needs_wake = 1,
};
