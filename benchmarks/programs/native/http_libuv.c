/* GETs over HTTP in a loop of libuv: a uv_poll_t for each socket, and a timer. */
#include "http_gets.h"

#include <curl/curl.h>
#include <uv.h>

static uv_timer_t timer;

static void act(curl_socket_t fd, int mask)
{
    CURLMsg *message;
    int running, left;

    (void)curl_multi_socket_action(http_gets.multi, fd, mask, &running);
    while ((message = curl_multi_info_read(http_gets.multi, &left)) != NULL) {
        CURL *easy = message->easy_handle;
        CURLcode result = message->data.result; /* invalid once it is removed */

        (void)curl_multi_remove_handle(http_gets.multi, easy);
        http_gets_done(easy, result);
    }
}

static void on_ready(uv_poll_t *handle, int status, int events)
{
    uv_os_fd_t fd;
    int mask = status < 0 ? CURL_CSELECT_ERR : 0;

    if (events & UV_READABLE)
        mask |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        mask |= CURL_CSELECT_OUT;
    if (uv_fileno((uv_handle_t *)handle, &fd) == 0)
        act(fd, mask);
}

static void on_timer(uv_timer_t *handle)
{
    (void)handle;
    act(CURL_SOCKET_TIMEOUT, 0);
}

static int on_delay(CURLM *multi, long delay_ms, void *userdata)
{
    (void)multi;
    (void)userdata;
    if (delay_ms < 0)
        return uv_timer_stop(&timer);
    return uv_timer_start(&timer, on_timer, (uint64_t)delay_ms, 0);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *userdata,
                     void *assigned)
{
    uv_poll_t *handle = assigned;
    int events = 0;

    (void)easy;
    (void)userdata;
    if (what == CURL_POLL_REMOVE) {
        if (handle != NULL)
            uv_close((uv_handle_t *)handle, free_handle);
        return 0;
    }
    if (handle == NULL) {
        handle = malloc(sizeof *handle);
        if (handle == NULL || uv_poll_init(uv_default_loop(), handle, fd) < 0)
            return -1;
        (void)curl_multi_assign(http_gets.multi, fd, handle);
    }
    if (what != CURL_POLL_OUT)
        events |= UV_READABLE;
    if (what != CURL_POLL_IN)
        events |= UV_WRITABLE;
    return uv_poll_start(handle, events, on_ready) < 0 ? -1 : 0;
}

static int attach(void)
{
    (void)curl_multi_setopt(http_gets.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    (void)curl_multi_setopt(http_gets.multi, CURLMOPT_TIMERFUNCTION, on_delay);
    return uv_timer_init(uv_default_loop(), &timer);
}

static int run(void)
{
    (void)uv_run(uv_default_loop(), UV_RUN_DEFAULT); /* tells what is left: sockets */
    return 0;
}

static void stop(void)
{
    uv_stop(uv_default_loop());
}

int main(int argc, char **argv)
{
    return gets_main(argc, argv, &(struct gets_peer){attach, run, stop, 0});
}
