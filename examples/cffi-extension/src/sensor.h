/* sensor.h: a sensor in C that runs in any event loop.
 *
 * It reads a FIFO, has a timer, and gets samples from its own thread. It knows nothing
 * about Python: it gets a path, and the content of a capsule named "fdmux.loop". */
#ifndef SENSOR_H
#define SENSOR_H

#include <fdmux_api.h>

struct sensor;

struct sensor_counts {
    uint64_t bytes;   /* read from the FIFO */
    uint64_t ticks;   /* of the timer, one every 2 ms */
    uint64_t samples; /* posted by the thread, and run */
    uint64_t total;   /* the sum of those samples */
    uint64_t dropped; /* posted, but the loop was closed first */
};

/* Open `path` and start. Returns 0 or -errno; on failure nothing is left behind.
 *
 * The sensor ends with sensor_stop, at the end of the FIFO, or with the loop. */
int sensor_start(const struct fdmux_loop_handle *ref, const char *path,
                 struct sensor **ret_sensor);

/* Stop: remove the watchers and join the thread. Idempotent, from any thread. The loop
 * may be closed, but its memory must still exist. */
void sensor_stop(struct sensor *sensor);

/* Drop the caller's reference. Does not stop the sensor. */
void sensor_release(struct sensor *sensor);

/* Whether the FIFO is closed and the thread joined. */
int sensor_has_ended(struct sensor *sensor);
struct sensor_counts sensor_count(struct sensor *sensor);

/* How many sensors are in memory. */
int sensor_live(void);

#endif
