/* pulse_outlived.c: frees an event of libpulse after its main loop was destroyed and
 * the loop is gone, as a context does that something else still refers to. */
#include <fdmux/adapters/pulse.h>

static void on_defer(pa_mainloop_api *api, pa_defer_event *event, void *userdata)
{
    (void)api, (void)event, (void)userdata;
}

int main(void)
{
    struct fdmux_pulse *pulse;
    struct fdmux_loop *loop;
    pa_defer_event *event;

    if (fdmux_loop_create(NULL, &loop) < 0 || fdmux_pulse_create(loop, &pulse) < 0)
        return 1;
    event = pulse->api.defer_new(&pulse->api, on_defer, NULL);
    fdmux_pulse_destroy(pulse);
    (void)fdmux_loop_destroy(loop);
    pulse->api.defer_free(event); /* frees the main loop as well */
    return 0;
}
