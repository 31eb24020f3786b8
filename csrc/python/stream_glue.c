/* stream_glue.c: what Python wrote during one batch of streams, in one call (glue.h).
 */
#include <Python.h>

#include "glue.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "stream.h"

#define PARTS_MAX 64
#define VERB(word) ((uint32_t)(word) & 0xf0000000u)
#define SLOT(word) ((uint32_t)(word) & 0x0fffffffu)
#define OPERAND(word) ((uint32_t)((word) >> 32))

/* The state of one flush: what lies before it, and parts for one stream. */
struct flush {
    struct fdmux_loop *loop;
    struct fdmux__hub *hub;
    const char *joined;
    size_t joined_left;
    struct iovec parts[PARTS_MAX];
    int part_count;
};

static struct fdmux__stream *live_stream(struct fdmux__hub *hub, uint32_t slot)
{
    struct fdmux__stream *stream;

    if (slot >= fdmux__load(&hub->streams.slot_count))
        return NULL;
    stream = fdmux__hub_at(hub, slot);
    return (fdmux__load(&stream->base.slot.generation) & 1) != 0 ? stream : NULL;
}

/* The bytes that stream `slot` received in this batch; false if there are none. */
static bool data_of(const struct flush *flush, uint32_t slot, struct iovec *ret_part)
{
    const struct fdmux__stream *source;

    if (slot >= fdmux__load(&flush->hub->streams.slot_count))
        return false;
    source = fdmux__hub_at(flush->hub, slot); /* it may have ended since */
    if (source->data_batch != flush->hub->batch_number)
        return false;
    *ret_part = (struct iovec){flush->hub->batch->arena + source->data_offset,
                               source->data_length};
    return true;
}

static bool next_joined(struct flush *flush, uint32_t length, struct iovec *ret_part)
{
    if (length > flush->joined_left)
        return false;
    *ret_part = (struct iovec){(void *)(uintptr_t)flush->joined, length};
    flush->joined += length;
    flush->joined_left -= length;
    return true;
}

static bool part_of_arena(const struct flush *flush, uint32_t first, uint64_t length,
                          struct iovec *ret_part)
{
    const struct fdmux_stream_batch *batch = flush->hub->batch;

    if (first > batch->arena_used || length > batch->arena_used - first)
        return false;
    *ret_part = (struct iovec){batch->arena + first, (size_t)length};
    return true;
}

/* The bytes that the word at *index sends; a verb with two words steps to the second.
 */
static bool part_of(struct flush *flush, const uint64_t *words, uint32_t count,
                    uint32_t *index, struct iovec *ret_part)
{
    uint64_t word = words[*index];

    switch (VERB(word)) {
    case FDMUX_PY_ECHO:
        return data_of(flush, SLOT(word), ret_part);
    case FDMUX_PY_SEND:
        return next_joined(flush, OPERAND(word), ret_part);
    case FDMUX_PY_PASS:
        return data_of(flush, OPERAND(word), ret_part);
    default:
        *index += 1;
        return *index < count
                   ? part_of_arena(flush, OPERAND(word), words[*index], ret_part)
                   : false;
    }
}

static bool continues(const struct iovec *last, const struct iovec *next)
{
    return (char *)last->iov_base + last->iov_len == (char *)next->iov_base;
}

/* Bytes that lie side by side become one part. */
static void gather(struct flush *flush, struct iovec part)
{
    struct iovec *last = &flush->parts[flush->part_count];

    if (flush->part_count > 0 && continues(last - 1, &part))
        last[-1].iov_len += part.iov_len;
    else
        flush->parts[flush->part_count++] = part;
}

static void send_gathered(struct flush *flush, uint32_t slot)
{
    struct fdmux__stream *stream = live_stream(flush->hub, slot);

    /* What fails has failed the stream, which its CLOSED record will say. */
    if (stream != NULL && flush->part_count > 0)
        (void)fdmux__stream_send(flush->loop, stream, flush->parts, flush->part_count);
    flush->part_count = 0;
}

static void end_stream(struct flush *flush, uint32_t slot, uint32_t verb)
{
    struct fdmux__stream *stream = live_stream(flush->hub, slot);
    uint64_t token;

    if (stream == NULL)
        return;
    token = fdmux__slots_token(&flush->hub->streams, slot);
    if (verb == FDMUX_PY_SHUTDOWN)
        (void)fdmux_stream_shutdown(flush->loop, token); /* the stream is live */
    else
        (void)fdmux_stream_close(flush->loop, token,
                                 verb == FDMUX_PY_DROP ? FDMUX_STREAM_DROP : 0);
}

static int do_words(struct flush *flush, const uint64_t *words, uint32_t count)
{
    uint32_t slot = 0;
    struct iovec part;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t word = words[i];
        bool is_end = VERB(word) >= FDMUX_PY_CLOSE;

        if (SLOT(word) != slot || flush->part_count == PARTS_MAX || is_end)
            send_gathered(flush, slot);
        slot = SLOT(word);
        if (is_end)
            end_stream(flush, slot, VERB(word));
        else if (part_of(flush, words, count, &i, &part))
            gather(flush, part);
        else
            return -EINVAL;
    }
    send_gathered(flush, slot);
    return 0;
}

static int do_all(struct fdmux_loop *loop, struct fdmux__hub *hub, const void *words,
                  uint32_t count, const void *joined, size_t joined_size)
{
    struct flush flush; /* its parts are not worth the clearing */

    flush.loop = loop;
    flush.hub = hub;
    flush.joined = joined;
    flush.joined_left = joined_size;
    flush.part_count = 0;
    return hub->batch == NULL ? -EINVAL : do_words(&flush, words, count);
}

int fdmux_py_stream_settle(struct fdmux_py_streams *streams, const void *words,
                           uint32_t count, const void *joined, size_t joined_size)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(streams->loop, &hub);

    return r < 0 ? r : do_all(streams->loop, hub, words, count, joined, joined_size);
}

/* Empty the batch, and fill it with what had no room. Returns its records or -errno. */
static int begin_batch(struct fdmux_loop *loop, struct fdmux__hub *hub)
{
    int r = 0;

    hub->batch->record_count = 0;
    hub->batch->arena_used = 0;
    hub->batch_number++;
    if (hub->collected.first != FDMUX__SLOT_NONE)
        r = fdmux__hub_serve(loop);
    return r < 0 ? r : (int)hub->batch->record_count;
}

int fdmux_py_stream_flush(struct fdmux_py_streams *streams, const void *words,
                          uint32_t count, const void *joined, size_t joined_size)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(streams->loop, &hub);

    if (r == 0)
        r = do_all(streams->loop, hub, words, count, joined, joined_size);
    return r < 0 ? r : begin_batch(streams->loop, hub);
}

int fdmux_py_stream_turn(struct fdmux_py_streams *streams, const void *words,
                         uint32_t count, const void *joined, size_t joined_size)
{
    int r = fdmux_py_stream_flush(streams, words, count, joined, joined_size);

    if (r != 0)
        return r < 0 ? r : 0;
    return fdmux_py_select(streams->select, streams->timeout_ns);
}

int fdmux_py_stream_serve(struct fdmux_loop *loop)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    return r < 0 ? r : fdmux__hub_serve(loop);
}

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

int64_t fdmux_py_stream_token(struct fdmux_loop *loop, uint32_t slot)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r < 0)
        return r;
    if (live_stream(hub, slot) == NULL)
        return -ENOENT;
    return (int64_t)fdmux__slots_token(&hub->streams, slot);
}

void *fdmux_py_totals_hold(struct fdmux_loop *loop, uint32_t slot)
{
    struct fdmux__hub *hub;
    struct fdmux__stream *stream;

    if (fdmux__hub_get(loop, &hub) < 0)
        return NULL;
    stream = live_stream(hub, slot);
    if (stream == NULL)
        return NULL;
    atomic_fetch_add(&stream->limits->reference_count, 1);
    return stream->limits;
}

void fdmux_py_totals_read(void *held, struct fdmux_py_stream_totals *ret_totals)
{
    const struct fdmux__stream_totals *totals =
        &((struct fdmux__stream_limits *)held)->totals;

    *ret_totals = (struct fdmux_py_stream_totals){
        .received = totals->received,
        .sent = totals->sent,
        .queued = totals->queued,
        .dropped = totals->dropped,
        .accepted = totals->accepted,
        .refused = totals->refused,
    };
}

void fdmux_py_totals_release(void *held)
{
    fdmux__stream_release_limits(held);
}

int fdmux_py_stream_tick(struct fdmux_loop *loop, uint32_t ticks)
{
    struct fdmux__hub *hub;
    int r = fdmux__hub_get(loop, &hub);

    if (r == 0)
        fdmux__hub_tick(loop, ticks);
    return r;
}

/* ---- transports ---------------------------------------------------------------- */

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

static int do_writes(const struct exchange *exchange)
{
    struct flush flush; /* its parts are not worth the clearing */
    uint32_t slot = 0;

    flush.loop = exchange->loop;
    flush.hub = exchange->hub;
    flush.part_count = 0;
    for (int i = 0; i < exchange->write_count; i++) {
        uint64_t word = exchange->writes[i].word;
        bool is_end = VERB(word) >= FDMUX_PY_CLOSE;

        if (SLOT(word) != slot || flush.part_count == PARTS_MAX || is_end)
            send_gathered(&flush, slot);
        slot = SLOT(word);
        if (is_end)
            end_stream(&flush, slot, VERB(word));
        else
            gather(&flush, exchange->writes[i].part);
    }
    send_gathered(&flush, slot);
    return 0;
}

static int wait_for_more(const struct exchange *exchange)
{
    int r;

    if (exchange->timeout_ns == FDMUX_PY_AGAIN)
        return fdmux_py_select_again(exchange->select);
    if (exchange->hub->batch->record_count > 0)
        return 0; /* there was no memory to give them */
    r = begin_batch(exchange->loop, exchange->hub);
    if (r != 0)
        return r < 0 ? r : 0;
    return fdmux_py_select(exchange->select, exchange->timeout_ns);
}

/* Without the GIL. */
static int do_exchange(const struct exchange *exchange, bool is_last)
{
    int r;

    Py_BEGIN_ALLOW_THREADS
    r = do_writes(exchange);
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
