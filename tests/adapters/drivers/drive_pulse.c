/* drive_pulse.c: each request asks for one of ten sinks, fdmux0 to fdmux9. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/pulse.h>
#include <pulse/pulseaudio.h>
#include <stdio.h>

#define NUMBER_MAX 1000

struct request {
    struct client *client;
    int number;
    int is_right;
};

struct client {
    struct trial *trial;
    struct fdmux_pulse *pulse;
    pa_context *context;
    pa_time_event *time;
    struct request requests[NUMBER_MAX];
};

static int live_count;

static const char *version(void)
{
    return pa_get_library_version();
}

static void on_state(pa_context *context, void *userdata)
{
    struct client *client = (struct client *)userdata;
    pa_context_state_t state = pa_context_get_state(context);

    if (state == PA_CONTEXT_READY)
        trial_ready(client->trial);
    else if (!PA_CONTEXT_IS_GOOD(state))
        trial_lost(client->trial);
}

static void name_of(char *name, size_t size, int number)
{
    snprintf(name, size, "fdmux%d", number % 10);
}

/* Called with the sink, and then once more with a positive `end`. */
static void on_sink(pa_context *context, const pa_sink_info *sink, int end,
                    void *userdata)
{
    struct request *request = (struct request *)userdata;
    char name[16];

    (void)context;
    name_of(name, sizeof name, request->number);
    if (end == 0)
        request->is_right = strcmp(sink->name, name) == 0;
    else if (end > 0)
        trial_answer(request->client->trial, request->number, request->is_right);
    else
        trial_failed(request->client->trial, request->number);
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);
    int r;

    if (client == NULL)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    *ret_client = client;
    r = fdmux_pulse_create(trial->loop, &client->pulse);
    if (r < 0)
        return r;
    client->context = pa_context_new(&client->pulse->api, "fdmux");
    pa_context_set_state_callback(client->context, on_state, client);
    return pa_context_connect(client->context, trial->address, PA_CONTEXT_NOAUTOSPAWN,
                              NULL) < 0
               ? -ECONNREFUSED
               : 0;
}

static int request(void *userdata, int number)
{
    struct client *client = (struct client *)userdata;
    struct request *request = &client->requests[number];
    pa_operation *operation;
    char name[16];

    *request = (struct request){client, number, 0};
    name_of(name, sizeof name, number);
    operation =
        pa_context_get_sink_info_by_name(client->context, name, on_sink, request);
    if (operation == NULL)
        return -EIO;
    pa_operation_unref(operation);
    return 0;
}

static void on_time(pa_mainloop_api *api, pa_time_event *event,
                    const struct timeval *at, void *userdata)
{
    (void)api, (void)event, (void)at;
    trial_timed_out(((struct client *)userdata)->trial);
}

static int begin_timeout(void *userdata)
{
    struct client *client = (struct client *)userdata;

    client->time = pa_context_rttime_new(
        client->context, pa_rtclock_now() + TIMEOUT_MS * PA_USEC_PER_MSEC, on_time,
        client);
    return client->time == NULL ? -ENOMEM : 0;
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    if (client->time != NULL)
        client->pulse->api.time_free(client->time);
    pa_context_set_state_callback(client->context, NULL, NULL);
    pa_context_disconnect(client->context);
    pa_context_unref(client->context);
    fdmux_pulse_destroy(client->pulse);
    free(client);
    live_count--;
}

const struct library library_pulse = {
    .name = "pulse",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .close = close_client,
    .live_count = &live_count,
};
