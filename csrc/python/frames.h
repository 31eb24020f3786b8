/* frames.h: a stream whose handler gets frames instead of bytes. */
#ifndef FDMUX_PYTHON_FRAMES_H
#define FDMUX_PYTHON_FRAMES_H

#include "stream_object.h" /* first: Python.h chooses what libc declares */

#include "fdmux_frame.h"

/* Call the handler with the list of complete frames. Returns its result, or NULL with
 * an exception. `*ret_error` is the error of the framer, or 0. */
PyObject *frames_deliver(struct stream_object *stream,
                         const struct fdmux_stream_event *event, int *ret_error);
/* Report that error to the stream, once the result of the handler is written. Returns
 * 0, or -1 with an exception. */
int frames_finish(struct stream_object *stream, int error);
void frames_drop_rest(struct stream_object *stream);

/* Methods and functions of the module. */
PyObject *frames_take_rest(PyObject *self, PyObject *unused);
int frames_set_framer(PyObject *self, PyObject *value, void *unused);
PyObject *frames_delimited(PyObject *module, PyObject *args);
PyObject *frames_length_prefixed(PyObject *module, PyObject *args);

#endif
