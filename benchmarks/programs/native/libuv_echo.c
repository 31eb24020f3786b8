/* The echo server of epoll_echo.c on libuv: the best that uvloop could reach.
 *
 * One 256 KiB receive buffer for all connections. uv_try_write is called first; only
 * the bytes that the kernel does not take are copied into a queued write, during which
 * the connection is not read. For the latency row it computes before it answers. */
#include "busy.h"
#include "echo_socket.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct kept_write {
    uv_write_t request;
    unsigned char bytes[];
};

static char receive_buffer[ECHO_BUFFER_SIZE];

static void on_bytes(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer);

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void close_stream(uv_stream_t *stream)
{
    if (!uv_is_closing((uv_handle_t *)stream))
        uv_close((uv_handle_t *)stream, free_handle);
}

static void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    (void)handle;
    (void)suggested; /* all servers use equal buffers */
    *ret_buffer = uv_buf_init(receive_buffer, sizeof receive_buffer);
}

static void on_kept_written(uv_write_t *request, int status)
{
    uv_stream_t *stream = request->handle;

    free(request->data);
    if (status < 0 || uv_read_start(stream, lend_buffer, on_bytes) < 0)
        close_stream(stream);
}

static int keep_rest(uv_stream_t *stream, const char *rest, size_t size)
{
    struct kept_write *kept = malloc(sizeof *kept + size);
    uv_buf_t buffer;
    int r;

    if (kept == NULL)
        return UV_ENOMEM;
    memcpy(kept->bytes, rest, size);
    kept->request.data = kept;
    buffer = uv_buf_init((char *)kept->bytes, (unsigned)size);
    r = uv_write(&kept->request, stream, &buffer, 1, on_kept_written);
    if (r < 0) {
        free(kept);
        return r;
    }
    return uv_read_stop(stream);
}

static void on_bytes(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    uv_buf_t message;
    int sent;

    if (size < 0) {
        close_stream(stream);
        return;
    }
    if (size == 0)
        return; /* libuv reports EAGAIN this way */
    stay_busy();
    message = uv_buf_init(buffer->base, (unsigned)size);
    sent = uv_try_write(stream, &message, 1);
    if (sent == UV_EAGAIN)
        sent = 0;
    if (sent < 0 || (sent < size &&
                     keep_rest(stream, buffer->base + sent, (size_t)(size - sent)) < 0))
        close_stream(stream);
}

static void on_connection(uv_stream_t *server, int status)
{
    uv_tcp_t *client;

    if (status < 0)
        return;
    client = malloc(sizeof *client);
    if (client == NULL || uv_tcp_init(server->loop, client) < 0) {
        free(client);
        return;
    }
    if (uv_accept(server, (uv_stream_t *)client) < 0 || uv_tcp_nodelay(client, 1) < 0 ||
        uv_read_start((uv_stream_t *)client, lend_buffer, on_bytes) < 0)
        close_stream((uv_stream_t *)client);
}

static int open_server(uv_loop_t *loop, uv_tcp_t *server)
{
    int listen_fd = echo_listen();
    int r;

    if (listen_fd < 0)
        return listen_fd;
    r = uv_tcp_init(loop, server);
    if (r == 0)
        r = uv_tcp_open(server, listen_fd);
    if (r == 0)
        r = uv_listen((uv_stream_t *)server, ECHO_BACKLOG, on_connection);
    if (r == 0)
        r = echo_announce(listen_fd);
    return r;
}

int main(void)
{
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t server;
    int r = open_server(loop, &server);

    if (r < 0) {
        (void)fprintf(stderr, "libuv_echo: %s\n", strerror(-r)); /* failing anyway */
        return EXIT_FAILURE;
    }
    return uv_run(loop, UV_RUN_DEFAULT);
}
