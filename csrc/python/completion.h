/* completion.h: results of native code, and the queue that announces them. */
#ifndef FDMUX_COMPLETION_H
#define FDMUX_COMPLETION_H

#include "delivery.h"

/* completion_port.c: what the completions of one loop share. */
struct completion_port {
    PyObject head;
    struct fdmux_queue *queue;
    PyObject *queue_owner; /* the NativeQueue */
    PyObject *outstanding; /* dict: address of a cell -> the completion that has it */
    PyObject *get_running; /* asyncio's function; NULL on other hosts */
    PyObject *new_event;   /* makes an event of another host; NULL on asyncio */
    PyObject *loop; /* of asyncio; borrowed: its end closes the port, which clears it */
    PyObject *modules; /* sys.modules, and a name in there */
    PyObject *trio;
    PyObject *set_result; /* names of methods, in the interpreter of this port */
    PyObject *create_future;
    bool is_asyncio;
};

int completion_port_register(PyObject *module, bool is_main);
/* The port of asyncio's loop that runs here, if a Completion was made there before:
 * borrowed. NULL without an exception: ask Python. */
struct completion_port *completion_port_here(void);
PyObject *completion_forget_port(PyObject *module, PyObject *unused);

/* completion.c: one result. */
int completion_register(PyObject *module);
/* Deliver what native code has written. Returns -1 with an exception set if a waiter
 * could not be woken. */
int completion_finish(PyObject *self);
/* Let go of the tasks that wait: their loop has ended. */
void completion_abandon(PyObject *self);

#endif
