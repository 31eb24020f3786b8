/* drive_hiredis.c: each request is an ECHO of its number. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/hiredis.h>
#include <stdio.h>

struct client {
    struct trial *trial;
    redisAsyncContext *context; /* NULL when hiredis has freed it */
    uint64_t timer;             /* of begin_timeout, before hiredis 1.0 */
    int is_timing;              /* only the command of begin_timeout reports */
};

struct request {
    struct trial *trial;
    int number;
};

static int live_count;

static const char *version(void)
{
    static char text[32];

    snprintf(text, sizeof text, "%d.%d.%d", HIREDIS_MAJOR, HIREDIS_MINOR,
             HIREDIS_PATCH);
    return text;
}

/* hiredis frees the context after this. */
static void on_gone(const redisAsyncContext *context)
{
    struct client *client = (struct client *)context->data;

    if (client == NULL)
        return; /* closed by us */
    client->context = NULL;
    if (!client->is_timing)
        trial_lost(client->trial);
}

static void on_connect(const redisAsyncContext *context, int status)
{
    struct client *client = (struct client *)context->data;

    if (status != REDIS_OK)
        on_gone(context);
    else if (client != NULL && !client->is_timing)
        trial_ready(client->trial);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    (void)status;
    on_gone(context);
}

static void on_reply(redisAsyncContext *context, void *data, void *userdata)
{
    redisReply *reply = (redisReply *)data;
    struct request request = *(struct request *)userdata;
    char text[16];

    (void)context;
    free(userdata);
    snprintf(text, sizeof text, "%d", request.number);
    if (reply == NULL)
        trial_failed(request.trial, request.number);
    else
        trial_answer(request.trial, request.number,
                     reply->type == REDIS_REPLY_STRING &&
                         strcmp(reply->str, text) == 0);
}

static int connect_to(struct client *client, int port)
{
    int r;

    client->context = redisAsyncConnect("127.0.0.1", port);
    if (client->context == NULL)
        return -ENOMEM;
    r = fdmux_hiredis_attach(client->trial->loop, client->context);
    if (r < 0)
        return r;
    client->context->data = client;
    redisAsyncSetConnectCallback(client->context, on_connect);
    redisAsyncSetDisconnectCallback(client->context, on_disconnect);
    return 0;
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);

    if (client == NULL)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    *ret_client = client;
    return connect_to(client, atoi(strchr(trial->address, ':') + 1));
}

static int request(void *userdata, int number)
{
    struct client *client = (struct client *)userdata;
    struct request *request = (struct request *)malloc(sizeof *request);

    if (request == NULL)
        return -ENOMEM;
    *request = (struct request){client->trial, number};
    if (redisAsyncCommand(client->context, on_reply, request, "ECHO %d", number) !=
        REDIS_OK) {
        free(request);
        return -EIO;
    }
    return 0;
}

static void drop(struct client *client)
{
    redisAsyncContext *context = client->context;

    client->context = NULL;
    if (context == NULL)
        return;
    context->data = NULL;
    redisAsyncFree(context);
}

static void on_silence(redisAsyncContext *context, void *reply, void *userdata)
{
    (void)context;
    if (reply == NULL)
        trial_timed_out((struct trial *)userdata);
}

/* What a program does before hiredis 1.0: a timer of its own frees the context. */
static int on_deadline(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct client *client = (struct client *)userdata;

    client->timer = 0;
    (void)fdmux_timer_remove(loop, timer);
    drop(client);
    return 0;
}

static int begin_timeout(void *userdata)
{
    struct client *client = (struct client *)userdata;
    struct fdmux_timer_options options = {.struct_size = sizeof options};
    struct fdmux_loop *loop = client->trial->loop;
    int r;

    drop(client);
    r = connect_to(client, client->trial->silent_port);
    if (r < 0)
        return r;
    client->is_timing = 1;
#if HIREDIS_MAJOR >= 1
    redisAsyncSetTimeout(client->context, (struct timeval){0, TIMEOUT_MS * 1000});
    (void)options, (void)loop, (void)on_deadline;
#else
    options.fn = on_deadline;
    options.userdata = client;
    r = fdmux_timer_add(loop, &options, &client->timer);
    if (r == 0)
        r = fdmux_timer_arm_in(loop, client->timer, TIMEOUT_MS * INT64_C(1000000), 0);
#endif
    if (redisAsyncCommand(client->context, on_silence, client->trial, "PING") !=
        REDIS_OK)
        r = -EIO;
    return r;
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    if (client->timer != 0)
        (void)fdmux_timer_remove(client->trial->loop, client->timer);
    drop(client);
    free(client);
    live_count--;
}

const struct library library_hiredis = {
    .name = "hiredis",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .close = close_client,
    .live_count = &live_count,
};
