/* drive_dbus.c: each request is a call of Echo, which the same connection answers. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/dbus.h>
#include <stdio.h>

#define INTERFACE "org.fdmux.Test"

struct client {
    struct trial *trial;
    DBusConnection *connection;
    struct fdmux_dbus *dbus;
};

struct request {
    struct client *client;
    int32_t number; /* -1: of begin_timeout */
};

static int live_count;

static const char *version(void)
{
    static char text[32];
    int major, minor, micro;

    dbus_get_version(&major, &minor, &micro);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, micro);
    return text;
}

/* The other side: sends the number back. */
static DBusHandlerResult echo(DBusConnection *connection, DBusMessage *call)
{
    DBusMessage *reply = dbus_message_new_method_return(call);
    dbus_int32_t number = -1;

    dbus_message_get_args(call, NULL, DBUS_TYPE_INT32, &number, DBUS_TYPE_INVALID);
    dbus_message_append_args(reply, DBUS_TYPE_INT32, &number, DBUS_TYPE_INVALID);
    dbus_connection_send(connection, reply, NULL);
    dbus_message_unref(reply);
    return DBUS_HANDLER_RESULT_HANDLED;
}

static DBusHandlerResult on_message(DBusConnection *connection, DBusMessage *message,
                                    void *userdata)
{
    struct client *client = (struct client *)userdata;

    if (dbus_message_is_method_call(message, INTERFACE, "Echo"))
        return echo(connection, message);
    if (dbus_message_is_method_call(message, INTERFACE, "Ignore"))
        return DBUS_HANDLER_RESULT_HANDLED; /* without a reply */
    if (dbus_message_is_signal(message, DBUS_INTERFACE_LOCAL, "Disconnected"))
        trial_lost(client->trial);
    return DBUS_HANDLER_RESULT_NOT_YET_HANDLED;
}

static void on_hello(DBusPendingCall *pending, void *userdata)
{
    struct client *client = (struct client *)userdata;
    DBusMessage *reply = dbus_pending_call_steal_reply(pending);
    const char *name;

    if (dbus_message_get_args(reply, NULL, DBUS_TYPE_STRING, &name,
                              DBUS_TYPE_INVALID)) {
        dbus_bus_set_unique_name(client->connection, name);
        trial_ready(client->trial);
    }
    dbus_message_unref(reply);
}

static void on_reply(DBusPendingCall *pending, void *userdata)
{
    struct request request = *(struct request *)userdata;
    struct trial *trial = request.client->trial;
    DBusMessage *reply = dbus_pending_call_steal_reply(pending);
    int is_error = dbus_message_get_type(reply) == DBUS_MESSAGE_TYPE_ERROR;
    int is_timeout = dbus_message_is_error(reply, DBUS_ERROR_NO_REPLY);
    dbus_int32_t number = -1;

    dbus_message_get_args(reply, NULL, DBUS_TYPE_INT32, &number, DBUS_TYPE_INVALID);
    dbus_message_unref(reply);
    if (is_timeout && request.number < 0)
        trial_timed_out(trial);
    else if (is_error)
        trial_failed(trial, request.number);
    else
        trial_answer(trial, request.number, number == request.number);
}

static int send_call(struct client *client, DBusMessage *message, int timeout_ms,
                     DBusPendingCallNotifyFunction fn, void *userdata,
                     DBusFreeFunction destroyed)
{
    DBusPendingCall *pending = NULL;

    dbus_connection_send_with_reply(client->connection, message, &pending, timeout_ms);
    dbus_message_unref(message);
    if (pending == NULL) {
        if (destroyed != NULL)
            destroyed(userdata);
        return -ENOTCONN;
    }
    dbus_pending_call_set_notify(pending, fn, userdata, destroyed);
    dbus_pending_call_unref(pending);
    return 0;
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
    client->connection = dbus_connection_open_private(trial->address, NULL);
    if (client->connection == NULL)
        return -ECONNREFUSED;
    dbus_connection_set_exit_on_disconnect(client->connection, FALSE);
    dbus_connection_add_filter(client->connection, on_message, client, NULL);
    r = fdmux_dbus_attach(trial->loop, client->connection, &client->dbus);
    return r < 0 ? r
                 : send_call(client,
                             dbus_message_new_method_call(DBUS_SERVICE_DBUS,
                                                          DBUS_PATH_DBUS,
                                                          DBUS_INTERFACE_DBUS, "Hello"),
                             -1, on_hello, client, NULL);
}

static int call(struct client *client, const char *method, int number, int timeout_ms)
{
    struct request *request = (struct request *)malloc(sizeof *request);
    DBusMessage *message = dbus_message_new_method_call(
        dbus_bus_get_unique_name(client->connection), "/", INTERFACE, method);

    if (request == NULL || message == NULL)
        return -ENOMEM;
    *request = (struct request){client, number};
    dbus_message_append_args(message, DBUS_TYPE_INT32, &request->number,
                             DBUS_TYPE_INVALID);
    return send_call(client, message, timeout_ms, on_reply, request, free);
}

static int request(void *userdata, int number)
{
    return call((struct client *)userdata, "Echo", number, -1);
}

static int begin_timeout(void *userdata)
{
    return call((struct client *)userdata, "Ignore", -1, TIMEOUT_MS);
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    fdmux_dbus_detach(client->dbus);
    dbus_connection_remove_filter(client->connection, on_message, client);
    dbus_connection_close(client->connection);
    dbus_connection_unref(client->connection);
    free(client);
    live_count--;
}

const struct library library_dbus = {
    .name = "dbus",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .close = close_client,
    .live_count = &live_count,
};
