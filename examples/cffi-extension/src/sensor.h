/* sensor.h: a sensor in C that lives in somebody else's event loop.
 *
 * It reads a FIFO, ticks by a timer, and gets samples from a thread of its own. It
 * knows nothing of Python: all it is given is a path, and what a capsule named
 * "fdmux.loop" points at. */
#ifndef SENSOR_H
#define SENSOR_H

#include <fdmux.h>

struct sensor;

struct sensor_counts {
    uint64_t bytes;   /* read from the FIFO */
    uint64_t ticks;   /* of the timer, one every 2 ms */
    uint64_t samples; /* posted by the thread, and run */
    uint64_t total;   /* the sum of those samples */
    uint64_t dropped; /* posted, but the loop was closed first */
};

/* Open `path` and begin. Returns 0 or -errno; then nothing is left behind.
 *
 * The sensor ends by sensor_stop, by the end of the FIFO, or with the loop. */
int sensor_start(const struct fdmux_loop_ref *ref, const char *path,
                 struct sensor **ret_sensor);

/* End it: remove the watchers. Idempotent, any thread; joins the sensor's thread. The
 * memory of the loop must still be there; that the loop is closed does no harm. */
void sensor_stop(struct sensor *sensor);

/* Give up the caller's reference. Does not stop the sensor. */
void sensor_release(struct sensor *sensor);

/* Whether the FIFO is closed and the thread joined. */
int sensor_has_ended(struct sensor *sensor);
struct sensor_counts sensor_count(struct sensor *sensor);

/* How many sensors are in memory. */
int sensor_live(void);

#endif
