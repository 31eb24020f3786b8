/* probe.h: the type fdmux._delivery.Probe, which measures what a loop calls.
 *
 * The streams, endpoints and handles of an observed loop are called through functions
 * of probe.c, which measure and then do as usual. A loop that is not observed has no
 * probe, and its streams and endpoints have the usual functions: so a callback costs
 * not one instruction more. */
#ifndef FDMUX_PROBE_H
#define FDMUX_PROBE_H

#include "delivery.h"

/* Batches of 1, 2, up to 4, 8, ... 1,024 calls, and of more. */
#define PROBE_SIZES 12
/* The bounds are in probe.c; the last count is of what was later than all of them. */
#define PROBE_LAGS 11

struct fdmux_datagram_event;
struct endpoint_object;

struct probe {
    PyObject head;
    PyObject *on_slow; /* called with (target, what, seconds) */
    PyObject *on_due; /* called without arguments */
    int64_t slow_ns;
    int64_t due_ns; /* when to call on_due */
    /* The batch of the core that is under way: what it calls between two waits. */
    struct fdmux_hold hold; /* its `leave` is the end of the batch */
    bool is_in_batch;
    uint32_t batch_calls;
    int64_t batch_began_ns;
    int64_t batch_ended_ns;
    /* The row of calls that Python makes, one after the other. */
    uint32_t row_calls;
    int64_t row_began_ns;
    int64_t row_counted_ns; /* until then its time is in busy_ns */
    int64_t call_began_ns;
    int64_t took_ns; /* the last call of it */
    /* Since it was made. */
    uint64_t calls;
    int64_t busy_ns;
    uint64_t sizes[PROBE_SIZES];
    uint64_t lags[PROBE_LAGS];
    int64_t lag_ns;
    uint64_t accepted;
    uint64_t shortages;
};

extern PyTypeObject *probe_type;

/* probe.c */
/* A batch of `calls` calls is over, which took `busy_ns` together. */
void probe_add_batch(struct probe *probe, uint32_t calls, int64_t busy_ns);
/* A call was made so long after it was due. */
void probe_add_lag(struct probe *probe, int64_t lag_ns);
/* A call of `what` of `target` is over, which has taken `took_ns`: tell it if it was
 * slow, and that a report is due. Returns 0, or -1 with an exception that must leave
 * the loop. */
int probe_tell(struct probe *probe, PyObject *target, const char *what, int64_t now_ns,
               int64_t took_ns);
int probe_register(PyObject *module, bool is_main);

/* probe_calls.c */
void probe_set_hold(struct probe *probe);
/* The functions of the streams and endpoints of an observed loop. */
int probe_on_stream(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata);
int probe_on_endpoint(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                      void *userdata);

/* A method of Delivery: observe(probe), or observe(None). */
PyObject *delivery_observe(PyObject *self, PyObject *probe);

#endif
