/* sensor.c: a descriptor, a timer and a thread in a loop that the sensor does not own.
 *
 * Its one rule: everything that may still call the sensor has a reference. A watcher
 * drops its reference in `destroyed`, its last call; a sample when its posted call has
 * run; the owner in sensor_release. The last one frees the memory. */
#define _GNU_SOURCE
#include "sensor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS INT64_C(2000000)
#define SAMPLE_COUNT 1000

struct sensor {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
    uint64_t io;
    uint64_t timer;
    int fd;
    bool has_thread; /* used only by functions of the loop */
    pthread_t thread;
    atomic_int references;
    atomic_bool has_ended;
    atomic_uint_least64_t bytes, ticks, samples, total, dropped;
};

struct sample {
    struct sensor *sensor;
    uint64_t value;
};

static atomic_int live_count;

static void hold(struct sensor *sensor)
{
    atomic_fetch_add(&sensor->references, 1);
}

void sensor_release(struct sensor *sensor)
{
    if (atomic_fetch_sub(&sensor->references, 1) > 1)
        return;
    atomic_fetch_sub(&live_count, 1);
    free(sensor);
}

/* ---- the thread ------------------------------------------------------------------ */

/* Runs once for each sample, on the loop's thread. `loop` is NULL if the loop was
 * closed before. In both cases this function frees the sample and its reference. */
static int on_sample(struct fdmux_loop *loop, void *userdata)
{
    struct sample *sample = userdata;
    struct sensor *sensor = sample->sensor;

    if (loop == NULL) {
        atomic_fetch_add(&sensor->dropped, 1);
    } else {
        atomic_fetch_add(&sensor->samples, 1);
        atomic_fetch_add(&sensor->total, sample->value);
    }
    free(sample);
    sensor_release(sensor);
    return 0;
}

static void post_sample(struct sensor *sensor, uint64_t value)
{
    struct sample *sample = malloc(sizeof *sample);

    if (sample == NULL) {
        atomic_fetch_add(&sensor->dropped, 1);
        return;
    }
    *sample = (struct sample){sensor, value};
    hold(sensor);
    if (sensor->api->post(sensor->loop, on_sample, sample) < 0)
        (void)on_sample(NULL, sample); /* refused, so free it here */
}

static void *measure(void *userdata)
{
    for (uint64_t value = 0; value < SAMPLE_COUNT; value++)
        post_sample(userdata, value);
    return NULL;
}

/* ---- functions of the loop ------------------------------------------------------- */

/* Whatever runs the loop returns a negative result; Python raises it as an OSError. The
 * watcher stays and is called again. */
static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct sensor *sensor = userdata;
    char buffer[4096];
    ssize_t size = read(sensor->fd, buffer, sizeof buffer);

    (void)loop, (void)io, (void)events;
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (size == 0)
        sensor_stop(sensor); /* unplugged; a function may remove its own watcher */
    atomic_fetch_add(&sensor->bytes, (uint64_t)size);
    return memchr(buffer, '!', (size_t)size) == NULL ? 0 : -EPROTO;
}

/* The first tick starts the thread, when sensor_start can no longer fail. */
static int on_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct sensor *sensor = userdata;
    int r;

    (void)loop, (void)timer;
    atomic_fetch_add(&sensor->ticks, 1);
    if (sensor->has_thread)
        return 0;
    r = -pthread_create(&sensor->thread, NULL, measure, sensor);
    sensor->has_thread = r == 0;
    return r;
}

/* The only function that closes and joins. Called exactly once, for any kind of end. */
static void on_io_destroyed(void *userdata)
{
    struct sensor *sensor = userdata;

    if (sensor->has_thread)
        (void)pthread_join(sensor->thread, NULL); /* started here, joined once */
    (void)close(sensor->fd); /* only read: nothing to flush */
    atomic_store(&sensor->has_ended, true);
    sensor_release(sensor);
}

static void on_timer_destroyed(void *userdata)
{
    sensor_release(userdata);
}

/* ---- start and stop -------------------------------------------------------------- */

static int start_io(struct sensor *sensor, const char *path)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC),
        .events = FDMUX_READ,
        .fn = on_readable,
        .userdata = sensor,
        .destroyed = on_io_destroyed,
    };
    int r;

    if (options.fd < 0)
        return -errno;
    sensor->fd = options.fd;
    hold(sensor); /* for the io watcher */
    r = sensor->api->io_add(sensor->loop, &options, &sensor->io);
    if (r < 0)
        on_io_destroyed(sensor); /* not registered, so fdmux does not call it */
    return r;
}

static int start_timer(struct sensor *sensor)
{
    const struct fdmux_api *api = sensor->api;
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = on_tick,
        .userdata = sensor,
        .destroyed = on_timer_destroyed,
    };
    int r = api->timer_add(sensor->loop, &options, &sensor->timer);

    if (r < 0)
        return r;
    hold(sensor); /* for the timer */
    return api->timer_arm(sensor->loop, sensor->timer,
                          api->loop_now(sensor->loop) + TICK_NS, TICK_NS);
}

static bool is_usable(const struct fdmux_api *api)
{
    return api->abi_major == FDMUX_ABI_MAJOR && api->abi_minor + 1 > FDMUX_ABI_MINOR &&
           api->struct_size >= sizeof *api;
}

int sensor_start(const struct fdmux_loop_handle *ref, const char *path,
                 struct sensor **ret_sensor)
{
    struct sensor *sensor;
    int r;

    if (!is_usable(ref->api))
        return -EOPNOTSUPP; /* a fdmux older than the header */
    sensor = calloc(1, sizeof *sensor);
    if (sensor == NULL)
        return -ENOMEM;
    atomic_fetch_add(&live_count, 1);
    sensor->api = ref->api;
    sensor->loop = ref->loop;
    atomic_store(&sensor->references, 1); /* for the caller */
    r = start_io(sensor, path);
    if (r >= 0)
        r = start_timer(sensor);
    if (r < 0) {
        sensor_stop(sensor);
        sensor_release(sensor);
        return r;
    }
    *ret_sensor = sensor;
    return 0;
}

void sensor_stop(struct sensor *sensor)
{
    /* A stale token is harmless: removal returns an error. */
    (void)sensor->api->timer_remove(sensor->loop, sensor->timer);
    (void)sensor->api->io_remove(sensor->loop, sensor->io);
}

int sensor_has_ended(struct sensor *sensor)
{
    return atomic_load(&sensor->has_ended);
}

struct sensor_counts sensor_count(struct sensor *sensor)
{
    return (struct sensor_counts){
        .bytes = atomic_load(&sensor->bytes),
        .ticks = atomic_load(&sensor->ticks),
        .samples = atomic_load(&sensor->samples),
        .total = atomic_load(&sensor->total),
        .dropped = atomic_load(&sensor->dropped),
    };
}

int sensor_live(void)
{
    return atomic_load(&live_count);
}
