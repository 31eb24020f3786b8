/* sdbus_lost.c: loses a connection of sd-bus with more calls in flight than the adapter
 * processes at once. Each must be answered before `lost` is called, once. */
#include <fdmux/adapters/sdbus.h>

#include <sys/socket.h>
#include <unistd.h>

enum { CALLS = 3 * FDMUX_SDBUS_BATCH };

static int answered_count, lost_count, answered_at_loss;

static int on_reply(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    (void)message, (void)userdata, (void)error;
    answered_count++;
    return 0;
}

static void on_lost(sd_bus *bus, int error, void *userdata)
{
    (void)bus, (void)error, (void)userdata;
    answered_at_loss = answered_count;
    lost_count++;
}

int main(void)
{
    struct fdmux_sdbus *sdbus;
    struct fdmux_loop *loop;
    sd_bus *bus;
    int ends[2];

    if (fdmux_loop_create(NULL, &loop) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0 ||
        sd_bus_new(&bus) < 0 || sd_bus_set_fd(bus, ends[0], ends[0]) < 0 ||
        sd_bus_start(bus) < 0 ||
        fdmux_sdbus_attach(loop, bus, on_lost, NULL, &sdbus) < 0)
        return 1;
    for (int i = 0; i < CALLS; i++)
        if (sd_bus_call_method_async(bus, NULL, "a.b", "/", "a.b", "C", on_reply, NULL,
                                     NULL) < 0)
            return 2;
    (void)close(ends[1]);
    for (int i = 0; i < 20; i++) /* more than it takes */
        if (fdmux_loop_dispatch(loop, 0, NULL, 0) < 0)
            return 3;
    fdmux_sdbus_detach(sdbus);
    sd_bus_unref(bus);
    (void)fdmux_loop_destroy(loop);
    if (lost_count != 1)
        return 4;
    return answered_at_loss == CALLS ? 0 : 5;
}
