/* transport_glue.c: streams for a host with buffers and sockets of its own, asyncio's.
 *
 * Their bytes are objects of Python, in a list that one call of C sends; what arrives
 * goes back as objects too. The sockets stay the host's (glue.h). */
#include <Python.h>

#include "glue.h"

#include <errno.h>

#include "flush.h"

int fdmux_py_stream_lend(struct fdmux_loop *loop, int fd,
                         const struct fdmux_stream_options *options,
                         uint64_t *ret_stream)
{
    struct fdmux__stream *stream;
    int r = fdmux_stream_add(loop, fd, options, ret_stream);

    if (r == 0)
        r = fdmux__stream_find(loop, *ret_stream, &stream);
    if (r == 0)
        stream->state |= FDMUX__STREAM_LENT;
    return r;
}

int fdmux_py_stream_give_back(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0 || stream->fd < 0)
        return r;
    (void)fdmux_io_remove(loop, stream->io); /* it is there: the stream lives */
    stream->fd = -1;
    stream->interest = 0; /* so that nobody asks for what is not watched */
    fdmux__stream_fail(loop, stream, 0);
    return 0;
}

int fdmux_py_stream_await_low(struct fdmux_loop *loop, uint64_t token,
                              uint32_t queue_low)
{
    struct fdmux__stream *stream;
    int r = fdmux__stream_find(loop, token, &stream);

    if (r < 0)
        return r;
    stream->limits->queue_low = queue_low;
    stream->state |= FDMUX__STREAM_AWAITED;
    return 0;
}

#define WRITES_MAX 256

struct write {
    uint64_t word;
    struct iovec part;
};

/* What one call of a transport function works with. */
struct exchange {
    struct fdmux_loop *loop;
    struct fdmux__hub *hub;
    struct fdmux_py_batch *select; /* NULL: only send */
    int64_t timeout_ns;
    int write_count;
    struct write writes[WRITES_MAX];
};

static void do_writes(const struct exchange *exchange)
{
    struct fdmux_py_flush flush;

    fdmux_py_flush_init(&flush, exchange->loop, exchange->hub);
    for (int i = 0; i < exchange->write_count; i++) {
        uint64_t word = exchange->writes[i].word;

        if (IS_END(word))
            fdmux_py_flush_end(&flush, word);
        else
            fdmux_py_flush_add(&flush, word, exchange->writes[i].part);
    }
    fdmux_py_flush_finish(&flush);
}

static int wait_for_more(const struct exchange *exchange)
{
    int r;

    if (exchange->timeout_ns == FDMUX_PY_AGAIN)
        return fdmux_py_select_again(exchange->select);
    if (exchange->hub->batch->record_count > 0)
        return 0; /* there was no memory to give them */
    r = fdmux_py_begin_batch(exchange->loop, exchange->hub);
    if (r != 0)
        return r < 0 ? r : 0;
    return fdmux_py_select(exchange->select, exchange->timeout_ns);
}

/* Without the GIL. */
static int do_exchange(const struct exchange *exchange, bool is_last)
{
    int r = 0;

    Py_BEGIN_ALLOW_THREADS
    do_writes(exchange);
    if (is_last && exchange->select != NULL)
        r = wait_for_more(exchange);
    Py_END_ALLOW_THREADS
    return r;
}

static int read_write(PyObject *list, Py_ssize_t index, struct write *ret_write)
{
    PyObject *word = PyList_GetItem(list, index);
    PyObject *data = word == NULL ? NULL : PyList_GetItem(list, index + 1);
    Py_ssize_t length;
    char *bytes;

    if (data == NULL || PyBytes_AsStringAndSize(data, &bytes, &length) < 0)
        return -1;
    ret_write->word = PyLong_AsUnsignedLongLong(word);
    ret_write->part = (struct iovec){bytes, (size_t)length};
    return ret_write->word == UINT64_MAX && PyErr_Occurred() != NULL ? -1 : 0;
}

/* Do what the list says, WRITES_MAX at a time. The objects in it are alive until they
 * have been sent: only then they leave it. Returns 0, or -1 with an exception. */
static int exchange_all(struct exchange *exchange, PyObject *list, int *ret_result)
{
    Py_ssize_t size = PyList_Size(list);
    Py_ssize_t index = 0;

    do {
        exchange->write_count = 0;
        for (; index + 1 < size && exchange->write_count < WRITES_MAX; index += 2)
            if (read_write(list, index, &exchange->writes[exchange->write_count++]) < 0)
                return -1;
        *ret_result = do_exchange(exchange, index + 1 >= size);
    } while (index + 1 < size); /* a word without its bytes is dropped */
    return size == 0 ? 0 : PyList_SetSlice(list, 0, size, NULL);
}

/* The objects for one record: its slot and bytes; or, for what is not data, minus one
 * less the slot, and the kind with the error behind it. Steals what it gives the lists.
 */
static int put_record(const struct fdmux_stream_batch *batch, uint32_t index,
                      PyObject *slots, PyObject *payloads)
{
    const struct fdmux_stream_record *record = &batch->records[index];
    bool is_data = record->kind == FDMUX_STREAM_DATA;
    PyObject *slot =
        PyLong_FromLong(is_data ? (long)record->slot : -1 - (long)record->slot);
    PyObject *data =
        is_data ? PyBytes_FromStringAndSize((const char *)batch->arena + record->first,
                                            record->last - record->first)
                : PyLong_FromLong((long)record->kind | (long)record->last << 8);

    if (slot == NULL || PyList_SetItem(slots, index, slot) < 0) {
        Py_XDECREF(data);
        return -1;
    }
    return data == NULL ? -1 : PyList_SetItem(payloads, index, data);
}

/* Turn the batch into (result, slots, payloads), and empty it. */
static PyObject *take_batch(struct fdmux_stream_batch *batch, int result)
{
    uint32_t count = batch->record_count;
    PyObject *slots = PyList_New(count);
    PyObject *payloads = slots == NULL ? NULL : PyList_New(count);
    PyObject *taken = NULL;
    int r = payloads == NULL ? -1 : 0;

    for (uint32_t i = 0; i < count && r == 0; i++)
        r = put_record(batch, i, slots, payloads);
    if (r == 0)
        taken = Py_BuildValue("(iOO)", result, slots, payloads);
    if (taken != NULL)
        batch->record_count = batch->arena_used = 0;
    Py_XDECREF(slots);
    Py_XDECREF(payloads);
    return taken;
}

/* turn(writes, timeout_ns) and settle(writes): the methods of struct fdmux_py_streams,
 * whose address `self` is. */
static PyObject *exchange_with(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct fdmux_py_streams *streams = PyLong_AsVoidPtr(self);
    struct exchange exchange; /* its writes are not worth the clearing */
    int result;

    exchange.loop = streams->loop;
    exchange.select = count == 2 ? streams->select : NULL;
    exchange.timeout_ns = count == 2 ? PyLong_AsLongLong(args[1]) : 0;
    if (PyErr_Occurred() != NULL)
        return NULL;
    result = fdmux__hub_get(exchange.loop, &exchange.hub);
    if (result == 0 && exchange.hub->batch == NULL)
        result = -EINVAL;
    if (result == 0 && exchange_all(&exchange, args[0], &result) < 0)
        return NULL;
    if (exchange.select == NULL)
        return PyLong_FromLong(result);
    /* The loop may have been closed meanwhile, by another thread. */
    if (fdmux__hub_get(exchange.loop, &exchange.hub) < 0 || exchange.hub->batch == NULL)
        return Py_BuildValue("(i[][])", result);
    return take_batch(exchange.hub->batch, result);
}

static PyMethodDef exchange_methods[] = {
    {"turn", (PyCFunction)(void (*)(void))exchange_with, METH_FASTCALL, NULL},
    {"settle", (PyCFunction)(void (*)(void))exchange_with, METH_FASTCALL, NULL},
};

int fdmux_py_stream_functions(uintptr_t list, struct fdmux_py_streams *streams)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *self = PyLong_FromVoidPtr(streams);
    int r = self == NULL ? -ENOMEM : 0;

    for (int i = 0; i < 2 && r == 0; i++) {
        PyObject *function = PyCFunction_NewEx(&exchange_methods[i], self, NULL);

        if (function == NULL || PyList_Append((PyObject *)list, function) < 0)
            r = -ENOMEM;
        Py_XDECREF(function); /* the list has it, or nobody */
    }
    if (r < 0)
        PyErr_Clear();
    Py_XDECREF(self);
    PyGILState_Release(state);
    return r;
}
