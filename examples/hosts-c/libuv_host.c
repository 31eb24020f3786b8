/* libuv_host.c: an fdmux loop inside a libuv loop, without a thread.
 *
 * A uv_poll_t watches its one descriptor, level-triggered as required. That descriptor
 * also becomes readable for timers, so the host needs no libuv timer for them. */
#define _GNU_SOURCE
#include <fdmux.h>

#include <uv.h>

#include "proof.h"

struct host {
    uv_poll_t guest;
    uv_timer_t timer;
    struct proof *proof;
};

/* uv_run returns when all handles are closed. */
static void leave(struct host *host)
{
    uv_close((uv_handle_t *)&host->guest, NULL);
    uv_close((uv_handle_t *)&host->timer, NULL);
}

static void on_readable(uv_poll_t *guest, int status, int events)
{
    struct host *host = guest->data;

    (void)events;
    if (status < 0 || !proof_dispatch(host->proof))
        leave(host);
}

/* The host's timer may be the last event; the guest then has nothing to dispatch. */
static void on_timer(uv_timer_t *timer)
{
    struct host *host = timer->data;

    host->proof->host_count++;
    if (proof_is_complete(host->proof))
        leave(host);
}

static int run_host(uv_loop_t *loop, struct host *host)
{
    int r = uv_poll_init(loop, &host->guest, fdmux_loop_fd(host->proof->loop));

    if (r < 0)
        return r;
    (void)uv_timer_init(loop, &host->timer); /* cannot fail */
    host->guest.data = host->timer.data = host;
    r = uv_poll_start(&host->guest, UV_READABLE, on_readable);
    if (r == 0)
        r = uv_timer_start(&host->timer, on_timer, HOST_MS, HOST_MS);
    if (r < 0)
        leave(host);
    (void)uv_run(loop, UV_RUN_DEFAULT); /* until both handles are closed */
    return r;
}

int main(void)
{
    struct proof proof;
    struct host host = {.proof = &proof};
    uv_loop_t loop;
    int r;

    if (proof_start(&proof) < 0 || uv_loop_init(&loop) < 0)
        return 1;
    r = run_host(&loop, &host);
    if (uv_loop_close(&loop) < 0 || r < 0) /* UV_EBUSY: a handle is left */
        return 1;
    return proof_end(&proof, "libuv");
}
